"""Numbers that users bring are plain numbers, or refused in one clear line."""

import fractions
import math

import numpy as np
import pytest
import torch

import smoothinfer as si
from smoothinfer.errors import (
    InputError,
    check_images,
    check_labels,
    plain_float,
    plain_int,
    plain_seed,
)

FOUR = [
    4,
    np.int64(4),
    np.uint8(4),
    np.array(4),
    torch.tensor(4),
    torch.tensor(4, dtype=torch.int8),
]
NO_NUMBERS = [True, np.True_, torch.tensor(True), "4", None, [4], (4,), np.array([4]), 4j, int]


@pytest.mark.parametrize("value", FOUR, ids=repr)
def test_whole_numbers_of_any_library_become_ints(value):
    found = plain_int("samples", value, at_least=4, at_most=4)
    assert found == 4
    assert type(found) is int


@pytest.mark.parametrize("value", [*NO_NUMBERS, torch.tensor([4])], ids=repr)
def test_what_is_no_number_is_refused_in_one_line_that_names_it(value):
    for check in (plain_int, plain_float):
        with pytest.raises(InputError, match=r"^samples must be a (whole )?number, not ") as caught:
            check("samples", value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 100


@pytest.mark.parametrize("value", [4.0, np.float32(4), torch.tensor(4.0)], ids=repr)
def test_a_float_is_no_whole_number_even_without_a_fraction(value):
    with pytest.raises(InputError, match=r"samples must be a whole number.*4\.0: write 4"):
        plain_int("samples", value)


@pytest.mark.parametrize("value", [4.5, math.nan, math.inf, np.float64("nan"), 1e300], ids=repr)
def test_other_floats_are_no_whole_numbers(value):
    with pytest.raises(InputError, match=r"samples must be a whole number, not the float [^:]*$"):
        plain_int("samples", value)


@pytest.mark.parametrize(
    "value",
    [10**30, 10**5000, 2**63, -(10**30), np.uint64(2**63)],
    ids=lambda value: type(value).__name__,
)
def test_numbers_that_no_tensor_holds_are_refused(value):
    with pytest.raises(InputError, match=r"samples must be at (most|least)") as caught:
        plain_int("samples", value)
    assert len(str(caught.value)) < 120


def test_the_ends_of_a_range_belong_to_it_or_not_as_they_say():
    assert plain_int("steps", 0, at_least=0) == 0
    with pytest.raises(InputError, match="steps must be at least 1, not 0"):
        plain_int("steps", 0, at_least=1)
    with pytest.raises(InputError, match="steps must be at most 7, not 8"):
        plain_int("steps", np.int32(8), at_most=7)
    assert plain_float("epsilon", 0, at_least=0, at_most=1) == 0
    assert plain_float("epsilon", 1, at_least=0, at_most=1) == 1
    for value in (0, 1.0, -1, 2):
        with pytest.raises(InputError, match=f"delta must be above 0 and below 1, not {value}"):
            plain_float("delta", value, above=0, below=1)


@pytest.mark.parametrize(
    "value",
    [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), fractions.Fraction(1, 2)],
    ids=repr,
)
def test_numbers_of_any_library_become_floats(value):
    found = plain_float("delta", value, above=0, below=1)
    assert found == 0.5
    assert type(found) is float
    assert plain_float("delta", torch.tensor(0.5, requires_grad=True)) == 0.5


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, torch.tensor(torch.nan), 10**400],
    ids=lambda value: type(value).__name__,
)
def test_numbers_without_an_end_are_refused(value):
    with pytest.raises(InputError, match="sigma must be a finite number, not"):
        plain_float("sigma", value)


def test_a_seed_is_any_integer_of_64_bits():
    for value in (-(2**63), -1, 0, 2**64 - 1, np.uint64(2**64 - 1)):
        assert plain_seed(value) == int(value)
    for value in (2**64, 10**30, 1.0, True, "1"):
        with pytest.raises(InputError, match="seed must be"):
            plain_seed(value)


@pytest.mark.parametrize(
    ("images", "remedy"),
    [
        (torch.rand(2, 3, 8, 8) * 255, "divide pixels in 0..255 by 255"),
        (torch.randn(2, 3, 8, 8), "put the normalisation into the model"),
        (torch.rand(2, 32, 32, 3), r"\(N, C, H, W\).*x.permute\(0, 3, 1, 2\)"),
        (torch.rand(3, 8, 8), r"x\[None\]"),
    ],
)
def test_images_of_another_form_are_refused_with_the_way_to_mend_them(images, remedy):
    with pytest.raises(si.InputError, match=remedy):
        check_images(images)


def test_labels_from_1_to_k_are_told_to_count_from_0():
    images = torch.rand(2, 1, 2, 2)
    with pytest.raises(si.InputError, match="subtract 1"):
        check_labels(torch.tensor([1, 3]), images, 3)
    with pytest.raises(si.InputError, match="subtract 1"):
        si.ImageData("a", images.byte(), torch.tensor([1, 3]), ("x", "y", "z"))
