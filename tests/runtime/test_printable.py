"""Text that a stranger chose is shown, and controls nothing."""

import unicodedata

import pytest

from smoothinfer.runtime.printable import one_line, printable

HOSTILE = "a\x1b]0;title\x07b\r\x08\x9b31mc\u202ed\u2028e\ud800f\x00g\u200bh\ufeffi"


def test_what_is_printed_holds_no_control_character_whatever_was_given():
    every = "".join(map(chr, (*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000))))
    for shown in (printable(every), one_line(every), printable(HOSTILE)):
        assert not {unicodedata.category(letter) for letter in shown} & {"Cc", "Cf", "Cs"}
        shown.encode()


@pytest.mark.parametrize("text", ["ResNet-20", "größe 8/255", "猫　犬", "a [b] ± 1", "C:\\new"])
def test_names_of_all_languages_stay_as_they_are(text):
    assert printable(text) == one_line(text) == text


def test_a_line_end_is_shown_unless_it_is_kept():
    assert printable("a\nb") == r"a\nb"
    assert printable("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\x0b", "\u2028", "\x85", "\n\n\t"])
def test_an_error_is_one_line(end):
    assert one_line(f"first{end}second") == "first second"
