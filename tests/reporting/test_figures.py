"""Figures of numbers, as files."""

import pytest

from smoothinfer.reporting.collect import collect
from smoothinfer.reporting.figures import accuracy_against_samples

BEGINNINGS = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.mark.parametrize("kind", BEGINNINGS)
def test_a_figure_has_the_format_of_its_name(kind, results, tmp_path):
    rows = collect(results / "attack").rows
    accuracy_against_samples(rows, tmp_path / f"a.{kind}", "a title")
    content = (tmp_path / f"a.{kind}").read_bytes()
    assert content.startswith(BEGINNINGS[kind])
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{kind}"]


def test_a_figure_names_its_axis_its_attacks_and_its_rules(results, tmp_path):
    accuracy_against_samples(collect(results / "sweep").rows, tmp_path / "a.svg", "every sigma")
    text = (tmp_path / "a.svg").read_text()
    for word in ("samples n", "clean", "fgsm", "pgd(steps=2)", "prediction", "soft", "every sigma"):
        assert f"<!-- {word} -->" in text
