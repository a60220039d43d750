"""Pictures of one model at work: its votes, its gradients, what its passes cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

from smoothinfer.reporting.figures import COLOURS, save_figure
from smoothinfer.types import Counts, Images, Labels

COSTS = ("passes", "milliseconds")
_CLEAN, _ATTACKED = COLOURS["prediction"], COLOURS["weighted"]


def votes_picture(
    images: Images,
    moved: Images,
    counts: tuple[Counts, Counts],
    labels: Labels,
    classes: Sequence[str],
    path: Path,
) -> None:
    """Draw how the passes vote on each image, clean and attacked.

    Args:
        images, moved: (N, C, H, W) in [0, 1], before and after the attack.
        counts: (N, K) votes on both.
        labels: (N,) true classes.
        classes: (K,) names.
        path: of the PNG, SVG or PDF file, written whole.
    """
    figure = Figure(figsize=(9.0, 1.9 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 3, squeeze=False, width_ratios=[1, 1, 5])
    for line, row in enumerate(grid):
        for panel, picture, name in zip(row, (images, moved), ("clean", "attacked"), strict=False):
            _show(panel, picture[line])
            panel.set_title(name if line == 0 else "", fontsize=9)
        places = range(len(classes))
        sides = zip((-0.2, 0.2), counts, (_CLEAN, _ATTACKED), ("clean", "attacked"), strict=True)
        for shift, count, colour, name in sides:
            shares = 100 * count[line].double() / count[line].sum()
            row[2].bar([p + shift for p in places], shares.tolist(), 0.38, color=colour, label=name)
        row[2].set_xticks(list(places), classes, fontsize=8)
        row[2].get_xticklabels()[int(labels[line])].set_fontweight("bold")
        row[2].set_ylim(0, 100)
        row[2].set_ylabel("passes, %", fontsize=8)
    grid[0][2].legend(frameon=False, fontsize=8)
    figure.suptitle("votes on each image; the true class in bold")
    save_figure(figure, path)


def grid_picture(columns: Mapping[str, Images], captions: Sequence[str], path: Path) -> None:
    """Draw images in columns with a name each, a caption for each line.

    Args:
        columns: (N, C, H, W) in [0, 1] by name.
        captions: (N,).
        path: of the PNG, SVG or PDF file, written whole.
    """
    figure = Figure(figsize=(1.8 * len(columns) + 1.2, 1.7 * len(captions)), layout="constrained")
    grid = figure.subplots(len(captions), len(columns), squeeze=False)
    for place, (name, pictures) in enumerate(columns.items()):
        for line, picture in enumerate(pictures):
            _show(grid[line][place], picture)
            if place == 0:
                grid[line][0].set_ylabel(captions[line], fontsize=8)
        grid[0][place].set_title(name, fontsize=9)
    save_figure(figure, path)


def cost_picture(
    curves: Mapping[str, Sequence[Mapping[str, float]]], measures: Sequence[str], path: Path
) -> None:
    """Draw accuracy against passes and milliseconds, a curve for each way to stop, fronts ringed.

    Args:
        curves: points by way to stop; each has ``passes``, ``milliseconds`` and, for every
            measure, its accuracy in % with ``MEASURE low`` and ``MEASURE high``; ``front MEASURE
            passes`` marks those to ring.
        measures: names of the accuracies: clean, and attacks.
        path: of the PNG, SVG or PDF file, written whole.
    """
    figure = Figure(figsize=(9.6, 3.6 * len(measures)), layout="constrained")
    grid = figure.subplots(len(measures), 2, squeeze=False)
    colours, marks = list(COLOURS.values()), "os^Dv"
    for row, measure in zip(grid, measures, strict=True):
        for panel, axis in zip(row, COSTS, strict=True):
            for number, (name, points) in enumerate(curves.items()):
                value = [point[measure] for point in points]
                ends = [
                    [point[measure] - point[f"{measure} low"] for point in points],
                    [point[f"{measure} high"] - point[measure] for point in points],
                ]
                place = [point[f"{measure} {axis}"] for point in points]
                style = {"color": colours[number], "linewidth": 1.3, "elinewidth": 0.6}
                panel.errorbar(place, value, yerr=ends, marker=marks[number], label=name, **style)
                best = [point for point in points if point.get(f"front {measure} {axis}")]
                places = [[p[f"{measure} {axis}"] for p in best], [p[measure] for p in best]]
                panel.scatter(*places, s=90, facecolors="none", edgecolors="black", zorder=3)
            panel.set_xscale("log", base=2 if axis == "passes" else 10)
            panel.set_xlabel(f"mean {axis} an image")
            panel.grid(alpha=0.25)
        row[0].set_ylabel(f"accuracy, {measure}, %")
    grid[0][0].legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def _show(panel: object, picture: Tensor) -> None:
    shown = picture.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy().squeeze()
    panel.imshow(shown, cmap="gray", vmin=0, vmax=1)  # type: ignore[attr-defined]
    panel.set_xticks([])  # type: ignore[attr-defined]
    panel.set_yticks([])  # type: ignore[attr-defined]
