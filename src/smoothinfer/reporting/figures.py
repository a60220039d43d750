"""Figures of numbers: curves, lines, bars.

Every function writes ``path``, a PNG, SVG or PDF file, whole or not at all.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from smoothinfer.errors import InputError
from smoothinfer.evaluation.results import Results
from smoothinfer.evaluation.rows import Rows, as_table
from smoothinfer.reporting.collect import Record, records, varying
from smoothinfer.reporting.tables import RULE_ORDER, sort_key
from smoothinfer.runtime.files import write_whole
from smoothinfer.runtime.printable import printable

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COSTS = ("passes", "milliseconds")
_STYLE: Any = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
_AXES = {
    "samples": "samples n",
    "sigma": "sigma of the input noise",
    "gradients": "gradients per image (k M)",
}
_ACROSS = 4  # panels in a row
_LONGEST = 200  # letters of a text
_ACCURACY = "accuracy, % (bars: 95 % over images)"


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` in the format of the file's name, whole or not at all.

    Names in it, of models or classes, are shown as they are: dollars make no formula.
    """
    _show_literally(figure)
    form = Path(path).suffix.lstrip(".") or "png"
    write_whole(path, lambda file: figure.savefig(file, format=form, dpi=150))


def png_of(figure: Figure) -> bytes:
    """Return ``figure`` as a PNG; see `save_figure`."""
    _show_literally(figure)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=150)
    return held.getvalue()


def label_text(name: str) -> str:
    """Return ``name`` as a figure shows it: printable, and not too long.

    Labels of ticks need it before they are set; `save_figure` sees to all other text.
    """
    return printable(name[:_LONGEST], keep="\n")


def _show_literally(figure: Figure) -> None:
    axes = [axis for panel in figure.axes for axis in (panel.xaxis, panel.yaxis)]
    powers = {id(text) for axis in axes if axis.get_scale() == "log" for text in axis.findobj(Text)}
    for text in figure.findobj(Text):
        text.set_text(label_text(text.get_text()))
        text.set_parse_math(id(text) in powers)  # a power of two is written as a formula


def accuracy_against_samples(
    rows: Rows | Results,
    path: str | Path | None = None,
    title: str = "",
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Draw accuracy against the number of samples: a panel per attack, a curve per rule.

    Args:
        rows: of one model at one sigma.
        path: where to write the figure; nowhere by default.
        title: above the panels.
        ax: axes to draw in, one for the clean images and one for each attack.

    Returns:
        The figure, which a notebook shows.

    Raises:
        InputError: there are more or fewer axes than panels, or several models or sigmas.
    """
    found = records(as_table(rows))
    many = [name for name in varying(found) if name not in ("samples", "rule", "attack", "seeds")]
    if many:
        raise InputError(
            f"these rows differ in {', '.join(many)}: filter them for one figure, as in "
            f"rows.filter({many[0]}=...)"
        )
    if ax is None:
        return draw_curves(found, "samples", "rule", [] if path is None else [Path(path)], title)
    axes, panels = [ax] if isinstance(ax, Axes) else list(ax), _panels(found, "samples")
    if len(axes) != len(panels):
        names = ", ".join(name for name, _, _ in panels)
        raise InputError(f"there are {len(panels)} panels ({names}): give as many axes")
    _draw_panels(axes, panels, "samples", "rule")
    figure = axes[0].figure.figure if hasattr(axes[0].figure, "figure") else axes[0].figure
    assert isinstance(figure, Figure)
    if path is not None:
        save_figure(figure, path)
    return figure


def draw_curves(
    found: Sequence[Record], axis: str, series: str, paths: Sequence[Path], title: str = ""
) -> Figure:
    """Draw accuracy against ``axis``: a panel for clean and each attack, a curve per ``series``.

    Args:
        found: see `records`; apart from ``axis``, ``series`` and the attack they should agree.
        axis: a column of numbers.
        series: a column.
        paths: where to write the figure.
        title: above the panels.
    """
    panels = _panels(found, axis)
    across = min(len(panels), _ACROSS)
    down = -(-len(panels) // across)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.4 * across + 1.6, 3.3 * down + 0.4), layout="constrained")
        places = figure.subplots(down, across, squeeze=False, sharey=True).flatten()
        for empty in places[len(panels) :]:
            empty.set_axis_off()
        _draw_panels(list(places), panels, axis, series)
        if len({str(record[series]) for record in found}) > 1:
            handles, labels = places[0].get_legend_handles_labels()
            figure.legend(handles, labels, frameon=False, title=series, loc="outside right upper")
        figure.suptitle(title, fontsize=11)
        for path in paths:
            save_figure(figure, path)
    return figure


Panel: TypeAlias = tuple[str, str, list[Record]]  # title, measure, records


def _draw_panels(places: Sequence[Axes], panels: Sequence[Panel], axis: str, series: str) -> None:
    for place, (name, measure, part) in zip(places, panels, strict=False):
        _draw_panel(place, part, axis, series, measure)
        place.set_title(name if len(name) < 32 else name[:30] + "…", fontsize=10)
    places[0].set_ylabel(_ACCURACY)


def _panels(found: Sequence[Record], axis: str) -> list[Panel]:
    """Return the panels: of the clean images, and of each attack."""
    # The cost of attacks is drawn in one panel, so that they can be compared.
    key = "seeds" if axis == "gradients" else "attack"
    attacks = list(dict.fromkeys(record[key] for record in found))
    panels: list[Panel] = []
    if key == "attack" and any(record["clean"] for record in found):
        clean = [record for record in found if record["attack"] == attacks[0]]
        panels.append(("clean", "clean", clean))
    for attack in attacks:
        part = [record for record in found if record[key] == attack and record["attacked"]]
        if part:
            panels.append((attack if key == "attack" else "attacked", "attacked", part))
    return panels


def _draw_panel(panel: Axes, part: list[Record], axis: str, series: str, measure: str) -> None:
    values = sorted({record[series] for record in part}, key=sort_key)
    many = len(values) > len(COLOURS)
    shades = mpl.colormaps["viridis"].resampled(len(values) + 1)  # the last is too pale
    for place, value in enumerate(values):
        curve = sorted((r for r in part if r[series] == value), key=lambda r: float(r[axis]))
        at = RULE_ORDER.index(value) if value in RULE_ORDER else place
        draw_errors(
            panel,
            # Curves that lie on each other are told apart when they stand side by side a little.
            [r[axis] * (1.03**place if axis == "samples" and not many else 1) for r in curve],
            [record[measure] for record in curve],
            color=shades(place) if many else COLOURS[at],
            marker=MARKERS[at % len(MARKERS)],
            elinewidth=0.35 if many else 0.7,
            capsize=0 if many else 2,
            label=str(value),
        )
    if axis in ("samples", "gradients"):
        panel.set_xscale("log", base=2)
    if axis == "samples":
        counts = sorted({record[axis] for record in part})
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
    panel.set_xlabel(_AXES.get(axis, axis))
    panel.grid(alpha=0.25)


def draw_errors(
    panel: Axes, places: Sequence[float], shown: Sequence[Mapping[str, float]], **style: Any
) -> None:
    """Draw one curve of figures with ``value``, ``low`` and ``high``, in per cent."""
    low = [each["value"] - each["low"] for each in shown]
    high = [each["high"] - each["value"] for each in shown]
    values = [each["value"] for each in shown]
    usual = {"markersize": 4, "linewidth": 1.4}
    panel.errorbar(places, values, yerr=[low, high], **(usual | style))


def draw_lines(
    places: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    axis: str,
    title: str,
    path: Path,
) -> None:
    """Draw plain lines over the same places.

    Args:
        places: (P,) along the axis.
        curves: a name for each line, (P,) values.
        axis: name of the axis.
        title: above.
    """
    figure, panel = single_panel((6.4, 3.8), axis, title)
    for number, (name, values) in enumerate(curves.items()):
        panel.plot(places, values, label=name, color=COLOURS[number], marker=MARKERS[number])
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    save_figure(figure, path)


def cost_curves(
    curves: Mapping[str, Sequence[Mapping[str, float]]], measures: Sequence[str], path: Path
) -> None:
    """Draw accuracy against passes and milliseconds, a curve per stopping rule, fronts ringed.

    Args:
        curves: points by stopping rule; each has ``passes``, ``milliseconds`` and, for every
            measure, its accuracy in % with ``MEASURE low`` and ``MEASURE high``; ``front MEASURE
            passes`` marks those to ring.
        measures: names of the accuracies: clean, and attacks.
    """
    figure = Figure(figsize=(9.6, 3.6 * len(measures)), layout="constrained")
    grid = figure.subplots(len(measures), 2, squeeze=False)
    for row, measure in zip(grid, measures, strict=True):
        for panel, axis in zip(row, COSTS, strict=True):
            for number, (name, points) in enumerate(curves.items()):
                keys = {"value": measure, "low": f"{measure} low", "high": f"{measure} high"}
                shown = [{name: p[key] for name, key in keys.items()} for p in points]
                places = [point[f"{measure} {axis}"] for point in points]
                style = {"color": COLOURS[number], "marker": MARKERS[number], "elinewidth": 0.6}
                draw_errors(panel, places, shown, label=name, **style)
                best = [point for point in points if point.get(f"front {measure} {axis}")]
                rings = [[p[f"{measure} {axis}"] for p in best], [p[measure] for p in best]]
                label = "the best for its cost (Pareto front)" if number == 0 else None
                style = {"facecolors": "none", "edgecolors": "black", "zorder": 3, "label": label}
                panel.scatter(*rings, s=90, **style)
            panel.set_xscale("log", base=2 if axis == "passes" else 10)
            panel.set_xlabel(f"mean {axis} per image")
            panel.grid(alpha=0.25)
        row[0].set_ylabel(f"accuracy, {measure}, %")
    grid[0][0].legend(frameon=False, fontsize=8)
    figure.suptitle("accuracy of the vote against its cost, by the rule that ends it")
    save_figure(figure, path)


def single_panel(size: tuple[float, float], axis: str, title: str) -> tuple[Figure, Axes]:
    """Return a figure of one panel with a grid."""
    figure = Figure(figsize=size, layout="constrained")
    panel = figure.subplots()
    panel.set_xlabel(axis)
    panel.set_title(title)
    panel.grid(alpha=0.25)
    return figure, panel
