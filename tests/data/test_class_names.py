"""A class is its name: data in another order is renumbered, other names are refused."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.data import ImageData, class_names_of, match_classes
from smoothinfer.noise.input_noise import with_input_noise

NAMES = ("ant", "cat", "dog")


class Reader(nn.Module):
    """The class is written in the first pixel, in steps of 0.1."""

    class_names = NAMES

    def forward(self, images):
        return -(images[:, 0, 0, :1] * 10 - torch.arange(3)).abs()


def data_of(names, truth):
    """Images of the classes ``truth``, labelled by the order of ``names``."""
    numbers = torch.tensor([NAMES.index(name) for name in truth])
    pixels = (numbers * 25.5).round().to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    labels = torch.tensor([names.index(name) for name in truth])
    return ImageData("data", pixels.contiguous(), labels, tuple(names))


TRUTH = ["ant", "cat", "dog", "dog", "ant", "cat"]


@pytest.mark.parametrize("names", [NAMES, ("dog", "ant", "cat"), ("cat", "dog", "ant")])
def test_every_order_of_the_classes_gives_the_same_accuracy(names):
    model = Reader().eval()
    for given in (model, si.NoisyModel(model).eval(), si.SmoothedClassifier(model, samples=1)):
        given.class_names = NAMES
        rows = si.evaluate(given, data_of(names, TRUTH))
        assert all(rows["correct"].to_pylist())
    found = si.audit(model, data_of(names, TRUTH), quick=True, checks=[2])
    assert found.clean.value == 1.0


def test_a_class_that_is_missing_in_the_data_changes_nothing():
    rows = si.evaluate(Reader().eval(), data_of(("cat", "dog"), ["cat", "dog", "dog"]))
    assert all(rows["correct"].to_pylist())


@pytest.mark.parametrize("names", [("ant", "cat", "cow"), ("1", "2", "10"), ("Ant", "cat", "dog")])
def test_other_names_are_refused(names):
    data = ImageData("data", torch.zeros(3, 1, 2, 2).byte(), torch.tensor([0, 1, 2]), names)
    with pytest.raises(si.InputError, match=r"rename the classes, or give --by-number"):
        si.evaluate(Reader().eval(), data)
    assert len(si.evaluate(Reader().eval(), data.by_number())) == 3


def test_numbers_are_no_names():
    data = ImageData("data", torch.zeros(2, 1, 2, 2).byte(), torch.tensor([0, 1]), ("0", "1"))
    assert match_classes(data, NAMES) is data
    named = ImageData("data", data.pixels, data.labels, ("b", "a"))
    assert match_classes(named, ("0", "1")) is named
    assert match_classes(named, None) is named


def test_a_loaded_model_knows_its_classes_behind_every_wrapper(tiny_run):
    model = si.load(tiny_run)
    names = tuple("0123456789")
    assert class_names_of(model) == names
    assert class_names_of(with_input_noise(model, 0.1)) == names
    assert class_names_of(si.SmoothedClassifier(model)) == names
    assert class_names_of(model.member(0, 1)) == names
    assert class_names_of(nn.Linear(2, 2)) is None
