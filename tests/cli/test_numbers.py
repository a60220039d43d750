from argparse import ArgumentTypeError

import pytest

from smoothinfer.cli.numbers import decimal_number, seed_number, whole_number

WORDS = ["", " ", "a", "²", "½", "٣", "1_000", "0x10", "1.5", "--1", "9" * 50, "1e3"]


@pytest.mark.parametrize("text", WORDS)
def test_only_plain_digits_are_whole_numbers(text):
    for read in (whole_number, seed_number):
        with pytest.raises(ArgumentTypeError, match="must be a whole number"):
            read(text)


@pytest.mark.parametrize("text", ["", "nan", "inf", "1e999", "٣", "1_0", "a"])
def test_only_finite_numbers_are_read(text):
    with pytest.raises(ArgumentTypeError, match="must be a finite number"):
        decimal_number(text)


def test_numbers_are_read():
    assert (whole_number(" 7 "), whole_number("-7"), decimal_number("1e-3")) == (7, -7, 0.001)
    assert seed_number(str(-(2**63))) == -(2**63)
    with pytest.raises(ArgumentTypeError, match="seed must be at most"):
        seed_number(str(2**63))
