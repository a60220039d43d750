"""The code of functions, as it was when it was loaded; layout and texts do not count."""

import linecache

import pytest
from torch import nn

from smoothinfer.evaluation.source_code import read_code
from tests.evaluation.user_files import key_of, key_of_attack, written
from tests.evaluation.ways import HEAD, USE

SAME = '''"""A module."""
import numpy as np
import os
from pathlib import Path
from scipy.stats import norm
from random import random
HERE = Path(__file__).parent
WEIGHTS = os.path.join(os.path.dirname(__file__), "weights.npy")
UNUSED = 1


def shift(x: "Images") -> "Images":
    """Shift images."""
    assert x.ndim, "no image"
    if len(x) > 1e9:
        raise ValueError("too many")
    return x + 0.1  # a grey level


def attack(model, images, labels, ball, *, generator=None):
    """Attack."""
    return shift(images) + norm.cdf(0.5) + 0 * random() + ({"b", "a"} == {HERE, WEIGHTS})


def unused():
    return 1
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Shift images.", "Move pictures."),
        ("  # a grey level", ""),
        ('"Images"', '"Pictures"'),
        ("too many", "a lot of images"),
        ("no image", "nothing"),
        ("x + 0.1", "(x  +  0.1)"),
        ("UNUSED = 1", "UNUSED = 2\n\n\n"),
        ("    return 1\n", "    return 2\n"),
    ],
)
def test_an_attack_stays_the_same_after(old, new, tmp_path):
    assert SAME.count(old) in (1, 2)
    before = key_of_attack(tmp_path, mine=SAME)
    assert key_of_attack(tmp_path, mine=SAME.replace(old, new)) == before
    assert key_of_attack(tmp_path / "moved", mine=SAME.replace(old, new)) == before


def test_a_file_that_was_edited_after_it_was_loaded_is_not_taken_for_its_code(tmp_path):
    """Rows of the old code would be taken over for the new."""
    one = HEAD + USE.format("images + 0.1")
    other = HEAD + USE.format("images + 0.2")
    with written(tmp_path, mine=one) as load:
        running = load("mine").attack
        (tmp_path / "mine.py").write_text(other)
        edited = key_of(running)
    assert edited != key_of_attack(tmp_path, mine=other)


def executed(text, **names):
    world = {"__name__": "somewhere"} | names
    exec(text, world)
    return world


NETWORK = """
import torch
class Net(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1) * SCALE + 0.1
"""


OTHER_NETWORK = NETWORK.replace("0.1", "0.2")


def test_a_network_that_was_executed_from_a_string_counts():
    one, same, two, three = (
        executed(text, SCALE=scale)["Net"]()
        for text, scale in ((NETWORK, 1), (NETWORK, 1), (OTHER_NETWORK, 1), (NETWORK, 2))
    )
    assert key_of(one) == key_of(same)
    assert len({str(key_of(net)) for net in (one, two, three)}) == 3


def test_two_classes_of_one_name_are_told_apart():
    nets = [executed(NETWORK.replace("0.1", by), SCALE=1)["Net"]() for by in ("0.1", "0.2")]
    keys = [key_of(nn.ModuleList(pair)) for pair in (nets, nets[::-1], nets[:1] * 2, nets[1:] * 2)]
    assert len({str(key) for key in keys}) == 4


def test_a_cell_of_a_notebook_counts_without_its_comments():
    def cell(number, text):
        name = f"/tmp/ipykernel_1/{number}.py"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        world = {"__name__": "__main__"}
        exec(compile(text, name, "exec"), world)
        return world["attack"]

    text = 'def attack(model, images, *rest):\n    """Attack."""\n    return images + 0.1\n'
    one = read_code(cell(1, text).__code__)
    assert one == read_code(cell(2, text.replace("Attack.", "Shift.") + "# more\n").__code__)
    assert one != read_code(cell(3, text.replace("0.1", "0.2")).__code__)


def test_byte_code_is_read_without_docstrings_and_in_one_order():
    def typed(text):
        world = {}
        exec(text, world)
        return read_code(world["f"].__code__).digest

    text = 'def f(x):\n    """Say."""\n    return x in {"a", "b", "c"}\n'
    assert typed(text) == typed(text.replace("Say.", "Tell."))
    assert typed(text) != typed(text.replace('"a"', '"d"'))
    caught = "def f(x):\n    try:\n        return x\n    except {}:\n        return 0\n"
    assert typed(caught.format("KeyError")) != typed(caught.format("ValueError"))


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("raise ValueError('a')", "raise ValueError(f'{x} b')", True),
        ("raise ValueError('a' + str(x))", "raise ValueError('b' + str(x))", True),
        ("raise ValueError('a')", "raise KeyError('a')", False),
        ("raise ValueError(1)", "raise ValueError(2)", False),
        ("assert x, 'a'", "assert x, 'b'", True),
        ("assert x", "assert not x", False),
    ],
)
def test_of_exceptions_the_text_alone_does_not_count(one, two, same, tmp_path):
    keys = [
        key_of_attack(tmp_path, mine=f"def attack(x):\n    {line}\n    return x\n")
        for line in (one, two)
    ]
    assert (keys[0] == keys[1]) == same
