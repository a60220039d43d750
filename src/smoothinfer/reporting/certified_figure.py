"""The figure of certificates: a curve that falls in steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from smoothinfer.evaluation.certified_rows import certified_accuracy
from smoothinfer.evaluation.rows import Rows
from smoothinfer.reporting.figures import COLOURS, draw_errors, save_figure, single_panel


def certified_curve(
    rows: Rows,
    path: str | Path,
    title: str = "",
    radii: Sequence[float] | None = None,
    axis: str = "L2 radius, pixel units",
    factor: float = 1.0,
) -> Figure:
    """Draw the share of images that are right and certified within each radius, as steps.

    An image is certified up to its radius and there it ends: the share falls at radii only.

    Args:
        rows: of `certify_rows`.
        path: of the figure.
        title: above, before the sigma of the noise.
        radii: L2 radii that were asked, each drawn as a point; by default those of the images.
        axis: name of the axis.
        factor: L2 radius of a radius of 1 in the norm of the axis.

    Returns:
        The figure.
    """
    sigma = rows["sigma"][0].as_py()
    own = sorted({0.0, *rows["certified"].to_pylist()})
    asked = [*own, max(1.05 * own[-1], sigma)] if radii is None else sorted(radii)
    shares = certified_accuracy(rows, asked)
    title = f"{title}, sigma {sigma:.4g}" if title else f"sigma {sigma:.4g}"
    figure, panel = single_panel((5.6, 3.8), axis, title)
    places = [radius / factor for radius in asked]
    low, high = [100 * share.low for share in shares], [100 * share.high for share in shares]
    # Between two radii holds what holds at the larger one.
    panel.fill_between(places, low, high, step="pre", color=COLOURS[0], alpha=0.2, linewidth=0)
    style: Any = {"color": COLOURS[0], "clip_on": False}
    values = [100 * share.value for share in shares]
    panel.plot(places, values, drawstyle="steps-pre", **style)
    if radii is not None:
        points = [
            {"value": v, "low": lo, "high": hi} for v, lo, hi in zip(values, low, high, strict=True)
        ]
        draw_errors(panel, places, points, linestyle="", marker="o", elinewidth=0.8, **style)
    panel.set_ylabel("certified accuracy, % (band: 95 % over images)")
    panel.set_ylim(0, 100)
    save_figure(figure, path)
    return figure
