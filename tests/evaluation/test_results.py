"""Objects show themselves: results by setting, predictions, data, audits."""

import matplotlib as mpl
import pyarrow as pa
import pytest
import torch

import smoothinfer as si
from smoothinfer.evaluation.judgement import points
from smoothinfer.evaluation.results import Results
from smoothinfer.numerics.statistics import Interval

mpl.use("agg")


@pytest.fixture(scope="module")
def rows():
    from tests.conftest import noisy_line

    data = si.load_data("digits", "test", 20)
    smooth = si.SmoothedClassifier(noisy_line(), 8)
    return si.evaluate(
        smooth, data, attack=["fgsm", "pgd(steps=2)"], ball=si.Linf(0.1), samples=[1, 8]
    )


def test_accuracy_is_told_by_setting(rows):
    found = rows.accuracy()
    assert list(found.columns) == [
        *("samples", "attack", "accuracy", "low", "high", "one_pass", "images")
    ]
    assert len(found) == 6  # clean and two attacks, at 1 and 8 passes
    clean = found[(found.attack == "none") & (found.samples == 8)].iloc[0]
    mask = (rows.to_pandas().attack == "none") & (rows.to_pandas().samples == 8)
    assert clean.accuracy == pytest.approx(rows.to_pandas()[mask].correct.mean())
    assert clean.low < clean.accuracy < clean.high
    assert clean.images == 20


def test_pooled_accuracy_over_settings_is_an_error(rows):
    with pytest.raises(si.InputError, match=r"differ in .*attack.*: filter them"):
        si.accuracy(rows)
    one = rows.filter(pa.compute.equal(rows["attack"], "fgsm"))
    one = one.filter(pa.compute.equal(one["samples"], 8))
    assert 0 <= si.accuracy(one).value <= 1


def test_results_are_an_arrow_table_too(rows):
    assert isinstance(rows, Results)
    assert pa.table(rows).num_rows == len(rows) == rows.num_rows
    assert rows == Results(rows.table)
    assert len(list(rows)) == len(rows)
    assert si.summarise(rows) == si.summarise(rows.table)
    with pytest.raises(AttributeError):
        _ = rows.nonsense


def test_shown_forms_are_short(rows):
    assert "120 rows" in repr(rows)
    assert len(repr(rows)) < 1500
    assert "<table" in rows._repr_html_()
    answer = si.SmoothedClassifier(si.resnet20().eval(), 4).predict(torch.rand(30, 3, 32, 32))
    assert repr(answer).startswith("Prediction of 30 images")
    assert "20 more" in repr(answer)
    assert len(repr(answer)) < 1000
    data = si.load_data("digits")
    assert repr(data) == "ImageData(digits: 360 images 1x8x8, 10 classes)"
    assert data._repr_html_().count("<img") == 10


def test_names_of_classes_are_no_markup():
    data = si.ImageData(
        "<b>", torch.zeros(1, 3, 2, 2, dtype=torch.uint8), torch.zeros(1, dtype=int), ("<i>",)
    )
    assert "<b>" not in data._repr_html_()
    assert "<i>" not in data._repr_html_()


def test_figures_are_returned_and_drawn_in_given_axes(rows, tmp_path):
    from matplotlib import pyplot as plt

    figure = si.accuracy_against_samples(rows)
    assert len([panel for panel in figure.axes if panel.has_data()]) == 3
    mine, axes = plt.subplots(1, 3)
    assert si.accuracy_against_samples(rows, tmp_path / "a.png", ax=axes) is mine
    assert (tmp_path / "a.png").exists()
    with pytest.raises(si.InputError, match="3 panels"):
        si.accuracy_against_samples(rows, ax=axes[0])
    limits = {panel.get_ylim() for panel in figure.axes}
    assert len(limits) == 1  # panels that compare share their range


def test_rows_are_filtered_by_the_values_of_columns(rows):
    attack = rows["attack"].to_pylist()[-1]
    kept = rows.filter(attack=attack)
    assert set(kept["attack"].to_pylist()) == {attack}
    assert 0 < len(kept) < len(rows)
    nothing = rows.filter(attack="none of them")
    assert "0 rows" in repr(nothing)
    assert "0 rows" in nothing._repr_html_()
    assert list(nothing.accuracy().accuracy) == []
    with pytest.raises(si.InputError, match="unknown column 'atack'"):
        rows.filter(atack=attack)


def test_printed_results_hide_no_column_and_name_ball_and_passes(rows, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    printed = str(rows)
    assert "..." not in printed
    assert "20 images, attacks within 0.1 in L-infinity, votes of 1, 8" in printed
    assert all(name in printed for name in ("pgd(steps=2)", "fgsm", "samples"))


def test_nothing_is_less_than_zero_by_rounding():
    assert str(Interval(0.0, -1e-18, 0.1, 30)) == "0.0 (0.0-10.0)"
    assert points(Interval(-1e-9, -0.5, 0.5, 30)) == "+0.0 (-50.0 to +50.0)"
