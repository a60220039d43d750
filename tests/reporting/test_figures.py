"""Figures of numbers, as files."""

import warnings
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from matplotlib.figure import Figure

from smoothinfer.errors import InputError
from smoothinfer.reporting.collect import collect
from smoothinfer.reporting.figures import accuracy_against_samples, save_figure
from smoothinfer.reporting.image_figures import vote_bars
from smoothinfer.reporting.strength_figures import strength_bars

BEGINNINGS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_figure_has_the_format_of_its_name(kind, results, tmp_path):
    rows = collect(results / "attack").rows
    accuracy_against_samples(rows, tmp_path / f"a.{kind}", "a title")
    content = (tmp_path / f"a.{kind}").read_bytes()
    assert content.startswith(BEGINNINGS[kind])
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{kind}"]


def test_a_figure_names_its_axis_its_attacks_and_its_rules(results, tmp_path):
    rows = collect(results / "sweep").rows
    with pytest.raises(InputError, match="differ in sigma"):
        accuracy_against_samples(rows)
    one = rows.filter(pc.equal(rows["sigma"], rows["sigma"][0]))
    accuracy_against_samples(one, tmp_path / "a.svg", "every sigma")
    text = (tmp_path / "a.svg").read_text()
    for word in ("samples n", "clean", "fgsm", "pgd(steps=2)", "prediction", "soft", "every sigma"):
        assert f"<!-- {word} -->" in text


@pytest.mark.parametrize("name", ["$\\frac{", "$x$", "a\x1b\x00\ud800", "n" * 100_000])
def test_a_figure_shows_any_name_as_it_is(name, tmp_path):
    image, counts, label = torch.rand(1, 1, 4, 4), torch.ones(1, 2), torch.zeros(1).long()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a font may lack a letter
        vote_bars(image, image, (counts, counts), label, [name, "dog"], tmp_path / "votes.png")
        strength_bars({name: 0.5}, tmp_path / "noise.svg")
    shown = (tmp_path / "noise.svg").read_text()
    assert (f"<!-- {name} -->" in shown) == (name == "$x$" or "frac" in name)


def test_powers_of_two_along_an_axis_are_written_as_powers(tmp_path):
    figure = Figure()
    panel = figure.subplots()
    panel.plot([1, 1024], [0, 1])
    panel.set_xscale("log", base=2)
    panel.set_title("$2$")
    save_figure(figure, tmp_path / "a.svg")
    shown = Path(tmp_path / "a.svg").read_text()
    assert "<!-- $\\mathdefault{2^{10}}$ -->" in shown
    assert "<!-- $2$ -->" in shown
