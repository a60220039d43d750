"""Pictures drawn from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from smoothinfer.evaluation.certified_rows import certified_accuracy
from smoothinfer.evaluation.rows import CLEAN, Rows, summarise
from smoothinfer.runtime.files import write_whole
from smoothinfer.types import Images

# Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = {
    "prediction": "#0072B2",
    "weighted": "#D55E00",
    "soft": "#009E73",
    "logits": "#CC79A7",
    "top_two": "#E69F00",
}
MARKERS = {"prediction": "o", "weighted": "s", "soft": "^", "logits": "D", "top_two": "v"}


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write ``figure`` in the format of the file's name, whole or not at all."""
    form = Path(path).suffix.lstrip(".") or "png"
    write_whole(path, lambda file: figure.savefig(file, format=form, dpi=150))


def accuracy_against_samples(rows: Rows, path: str | Path, title: str = "") -> None:
    """Draw accuracy against the number of samples: a panel per attack, a curve per rule.

    Args:
        rows: of one model at one sigma.
        path: of the PNG or SVG file, written whole.
        title: above the panels.
    """
    attacks = sorted(rows["attack"].unique().to_pylist(), key=lambda name: name != CLEAN)
    rules = [name for name in COLOURS if name in rows["rule"].unique().to_pylist()]
    aside = [1.06 ** (place - (len(rules) - 1) / 2) for place in range(len(rules))]
    with mpl.rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(3.4 * len(attacks) + 0.6, 3.6), layout="constrained")
        panels = figure.subplots(1, len(attacks), squeeze=False)[0]
        for panel, attack in zip(panels, attacks, strict=True):
            part = rows.filter(pc.equal(rows["attack"], attack))
            for place, rule in enumerate(rules):
                _curve(panel, part.filter(pc.equal(part["rule"], rule)), rule, aside[place])
            panel.set_title("clean" if attack == CLEAN else attack)
            panel.set_xlabel("samples n")
            panel.grid(alpha=0.25)
        panels[0].set_ylabel("accuracy, % (bars: 95 % over images)")
        panels[-1].legend(frameon=False, loc="best")
        figure.suptitle(title)
        save_figure(figure, path)


def _curve(panel: Axes, rows: Rows, rule: str, aside: float) -> None:
    held = {e["description"]["samples"]: e["attacked"] or e["clean"] for e in summarise(rows)}
    counts = sorted(held)
    found = [held[count] for count in counts]
    # Curves that lie on each other stay readable when they stand side by side a little.
    shifted = [count * aside for count in counts]
    panel.errorbar(
        shifted,
        [100 * each["value"] for each in found],
        yerr=[
            [100 * (each["value"] - each["low"]) for each in found],
            [100 * (each["high"] - each["value"]) for each in found],
        ],
        color=COLOURS[rule],
        marker=MARKERS[rule],
        markersize=4,
        linewidth=1.4,
        elinewidth=0.8,
        capsize=2,
        label=rule,
    )
    panel.set_xscale("log", base=2)
    panel.set_xticks(counts, [str(count) for count in counts])
    panel.minorticks_off()


def certified_curve(rows: Rows, path: str | Path, title: str = "") -> None:
    """Draw the share of images that are right and certain within each radius.

    Args:
        rows: of `certify_rows`.
        path: of the PNG or SVG file, written whole.
        title: above.
    """
    sigma = rows["sigma"][0].as_py()
    most = max([*rows["certified"].to_pylist(), sigma])
    radii = [most * step / 200 for step in range(201)]
    shares = certified_accuracy(rows, radii)
    figure = Figure(figsize=(5.6, 3.8), layout="constrained")
    panel = figure.subplots()
    low, high = [100 * share.low for share in shares], [100 * share.high for share in shares]
    panel.fill_between(radii, low, high, color=COLOURS["prediction"], alpha=0.2, linewidth=0)
    panel.plot(radii, [100 * share.value for share in shares], color=COLOURS["prediction"])
    panel.set_xlabel("L2 radius, pixel units")
    panel.set_ylabel("certified accuracy, % (band: 95 % over images)")
    panel.set_ylim(0, 100)
    panel.grid(alpha=0.25)
    panel.set_title(title)
    save_figure(figure, path)


def sheet(
    images: Images,
    moved: Images,
    captions: Sequence[Sequence[str]],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw images, what an attack made of them, and the difference, in three rows.

    Args:
        images, moved: (N, C, H, W) in [0, 1]; a picture for each, so give a few.
        captions: up to three rows of N, below the pictures of each row.
        path: of the PNG or SVG file, written whole.
        title: above; it also says how much the difference is magnified.
    """
    steps = moved - images
    factor = 0.5 / max(float(steps.abs().max()), 1e-12)
    rows = {"clean": images, "adversarial": moved, "difference": 0.5 + factor * steps}
    figure = Figure(figsize=(1.1 * len(images) + 0.9, 4.4), layout="constrained")
    panels = figure.subplots(3, len(images), squeeze=False)
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for panel, picture in zip(line, pictures, strict=True):
            shown = picture.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy()
            panel.imshow(shown.squeeze(), cmap="gray", vmin=0, vmax=1)
            panel.set_xticks([])
            panel.set_yticks([])
        line[0].set_ylabel(name)
    for line, told in zip(panels, captions, strict=False):
        for panel, caption in zip(line, told, strict=True):
            panel.set_xlabel(caption, fontsize=7)
    figure.suptitle(f"{title} (difference magnified {factor:.3g} times)")
    save_figure(figure, path)


def noise_course(course: Mapping[str, Mapping[str, float]], path: str | Path) -> None:
    """Draw how strong the learned noise of each layer was after every epoch.

    Args:
        course: {epoch: {weight: noise standard deviation in multiples of the weight's own}}.
        path: of the PNG or SVG file, written whole.
    """
    epochs = sorted(course, key=int)
    layers = list(course[epochs[-1]])
    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    panel = figure.subplots()
    shades = mpl.colormaps["viridis"]
    for place, layer in enumerate(layers):
        values = [course[epoch].get(layer, float("nan")) for epoch in epochs]
        shade = shades(place / max(1, len(layers) - 1))
        label = layer if place in (0, len(layers) - 1) else None
        panel.plot([int(epoch) for epoch in epochs], values, color=shade, marker=".", label=label)
    panel.set_xlabel("epoch")
    panel.set_ylabel("std of the noise / std of the weight")
    panel.set_title("learned noise, a line for each layer from the first to the last")
    panel.grid(alpha=0.25)
    panel.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def strengths_picture(strengths: Mapping[str, float], path: str | Path) -> None:
    """Draw how strong the learned noise of each layer is, the first layer on top.

    Args:
        strengths: {place: noise standard deviation in multiples of what it disturbs}.
        path: of the PNG or SVG file, written whole.
    """
    names = list(strengths)
    figure = Figure(figsize=(6.4, 0.9 + 0.24 * len(names)), layout="constrained")
    panel = figure.subplots()
    panel.barh(range(len(names)), list(strengths.values()), color=COLOURS["prediction"])
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel("std of the noise / std of what it disturbs")
    panel.grid(alpha=0.25, axis="x")
    save_figure(figure, path)
