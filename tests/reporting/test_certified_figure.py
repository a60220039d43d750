"""The curve of certificates falls in steps, at every radius that was asked."""

import pyarrow as pa

from smoothinfer.reporting.certified_figure import certified_curve

ROWS = pa.table(
    {
        "correct": [True, True, True, False],
        "certified": [0.5, 0.5, 0.25, 0.5],
        "sigma": [0.5] * 4,
    }
)


def curve(path, **options):
    figure = certified_curve(ROWS, path, "4 images", **options)
    (panel,) = figure.axes
    return panel, panel.lines[0]


def test_every_radius_asked_is_drawn_also_where_nothing_is_certified(tmp_path):
    panel, line = curve(tmp_path / "c.png", radii=[0, 0.25, 0.5, 0.75])
    assert line.get_xdata().tolist() == [0, 0.25, 0.5, 0.75]
    assert line.get_ydata().tolist() == [75, 75, 50, 0]
    assert line.get_drawstyle() == "steps-pre"
    assert panel.lines[1].get_marker() == "o"
    assert panel.get_title() == "4 images, sigma 0.5"


def test_of_a_fixed_vote_the_curve_falls_at_the_radii_of_the_images(tmp_path):
    _, line = curve(tmp_path / "c.png")
    assert line.get_xdata().tolist() == [0, 0.25, 0.5, 0.525]
    assert line.get_ydata().tolist() == [75, 75, 50, 0]


def test_radii_in_another_norm_stand_on_its_axis(tmp_path):
    panel, line = curve(tmp_path / "c.png", radii=[0.5], axis="L-infinity radius", factor=8)
    assert line.get_xdata().tolist() == [0.0625]
    assert panel.get_xlabel() == "L-infinity radius"
