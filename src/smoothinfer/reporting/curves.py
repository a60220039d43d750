"""Curves of accuracy against anything that was varied, from records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothinfer.reporting.collect import Record
from smoothinfer.reporting.figures import COLOURS, MARKERS, save_figure
from smoothinfer.reporting.tables import place_of

_COLOURS = [*COLOURS.values(), "#56B4E9", "#000000"]
_AXES = {
    "samples": "samples n",
    "sigma": "sigma of the input noise",
    "gradients": "gradients an image (k M)",
}
_ACROSS = 4  # panels in a row
_MARKERS = [*MARKERS.values(), "P", "X"]


def draw_curves(
    found: Sequence[Record], axis: str, series: str, paths: Sequence[Path], title: str = ""
) -> None:
    """Draw accuracy against ``axis``: a panel for clean and each attack, a curve per ``series``.

    Args:
        found: see `records`; apart from ``axis``, ``series`` and the attack they should agree.
        axis: a column of numbers.
        series: a column.
        paths: of PNG, SVG or PDF files, each written whole.
        title: above the panels.
    """
    # What an attack cost is drawn in one panel, that attacks may be compared.
    key = "seeds" if axis == "gradients" else "attack"
    attacks = list(dict.fromkeys(record[key] for record in found))
    panels: list[tuple[str, str, list[Record]]] = []
    if key == "attack" and any(record["clean"] for record in found):
        one = [record for record in found if record["attack"] == attacks[0]]
        panels.append(("clean", "clean", one))
    for attack in attacks:
        part = [record for record in found if record[key] == attack and record["attacked"]]
        if part:
            panels.append((attack if key == "attack" else "attacked", "attacked", part))
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        across = min(len(panels), _ACROSS)
        down = -(-len(panels) // across)
        figure = Figure(figsize=(3.4 * across + 1.6, 3.3 * down + 0.4), layout="constrained")
        places = figure.subplots(down, across, squeeze=False).flatten()
        for empty in places[len(panels) :]:
            empty.set_axis_off()
        places = places[: len(panels)]
        for place, (name, measure, part) in zip(places, panels, strict=True):
            _panel(place, part, axis, series, measure)
            place.set_title(name if len(name) < 32 else name[:30] + "…", fontsize=10)
        places[0].set_ylabel("accuracy, % (bars: 95 % over images)")
        if len({str(record[series]) for record in found}) > 1:
            handles, labels = places[-1].get_legend_handles_labels()
            figure.legend(handles, labels, frameon=False, title=series, loc="outside right upper")
        figure.suptitle(title, fontsize=11)
        for path in paths:
            save_figure(figure, path)


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
        path: of the PNG, SVG or PDF file, written whole.
    """
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    panel = figure.subplots()
    for number, (name, values) in enumerate(curves.items()):
        panel.plot(places, values, label=name, color=_COLOURS[number], marker=_MARKERS[number])
    panel.set_xlabel(axis)
    panel.set_title(title)
    panel.grid(alpha=0.25)
    figure.legend(frameon=False, loc="outside lower center", ncols=2)
    save_figure(figure, path)


def _panel(panel: Axes, part: list[Record], axis: str, series: str, measure: str) -> None:
    values = sorted({record[series] for record in part}, key=place_of)
    many = len(values) > len(_COLOURS)
    shades = mpl.colormaps["viridis"].resampled(len(values) + 1)  # the last is too pale
    for place, value in enumerate(values):
        held = sorted((r for r in part if r[series] == value), key=lambda r: float(r[axis]))
        shown = [record[measure] for record in held]
        panel.errorbar(
            [record[axis] for record in held],
            [each["value"] for each in shown],
            yerr=[
                [each["value"] - each["low"] for each in shown],
                [each["high"] - each["value"] for each in shown],
            ],
            color=shades(place) if many else _COLOURS[place],
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=4,
            linewidth=1.4,
            elinewidth=0.35 if many else 0.7,
            capsize=0 if many else 2,
            label=str(value),
        )
    if axis == "samples":
        counts = sorted({record[axis] for record in part})
        panel.set_xscale("log", base=2)
        panel.set_xticks(counts, [str(count) for count in counts])
        panel.minorticks_off()
    if axis == "gradients":
        panel.set_xscale("log", base=2)
    panel.set_xlabel(_AXES.get(axis, axis))
    panel.grid(alpha=0.25)
