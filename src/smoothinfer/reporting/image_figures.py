"""Figures of images: before and after an attack, with votes, in grids.

Every function writes ``path``, a PNG, SVG or PDF file, whole or not at all.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from smoothinfer.data import ImageData
from smoothinfer.reporting.figures import COLOURS, label_text, save_figure
from smoothinfer.types import Counts, Images, Labels


def example_sheet(
    images: Images,
    adversarial: Images,
    captions: Sequence[Sequence[str]],
    path: str | Path,
    title: str = "",
) -> None:
    """Draw images, their adversarial versions, and the difference, in three rows.

    Args:
        images, adversarial: (N, C, H, W) in [0, 1]; a picture for each, so give a few.
        captions: up to three rows of N, below the pictures of each row.
        title: above, followed by the magnification of the difference.
    """
    steps = adversarial - images
    factor = 0.5 / max(float(steps.abs().max()), 1e-12)
    rows = {"clean": images, "adversarial": adversarial, "difference": 0.5 + factor * steps}
    figure = Figure(figsize=(1.1 * len(images) + 0.9, 4.4), layout="constrained")
    panels = figure.subplots(3, len(images), squeeze=False)
    for line, (name, pictures) in zip(panels, rows.items(), strict=True):
        for panel, picture in zip(line, pictures, strict=True):
            _show(panel, picture)
        line[0].set_ylabel(name)
    for line, texts in zip(panels, captions, strict=False):
        for panel, caption in zip(line, texts, strict=True):
            panel.set_xlabel(caption, fontsize=7)
    figure.suptitle(f"{title} (difference magnified {factor:.3g} times)")
    save_figure(figure, path)


def vote_bars(
    images: Images,
    adversarial: Images,
    counts: tuple[Counts, Counts],
    labels: Labels,
    classes: Sequence[str],
    path: Path,
) -> None:
    """Draw how the passes vote on each image, clean and attacked.

    Args:
        images, adversarial: (N, C, H, W) in [0, 1], before and after the attack.
        counts: (N, K) votes on both.
        labels: (N,) true classes.
        classes: (K,) names.
    """
    figure = Figure(figsize=(9.0, 1.9 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 3, squeeze=False, width_ratios=[1, 1, 5])
    names, places = ("clean", "attacked"), range(len(classes))
    for line, row in enumerate(grid):
        for panel, pictures, name in zip(row, (images, adversarial), names, strict=False):
            _show(panel, pictures[line])
            panel.set_title(name if line == 0 else "", fontsize=9)
        for shift, count, colour, name in zip((-0.2, 0.2), counts, COLOURS, names, strict=False):
            shares = 100 * count[line].double() / count[line].sum()
            row[2].bar([p + shift for p in places], shares.tolist(), 0.38, color=colour, label=name)
        row[2].set_xticks(list(places), [*map(label_text, classes)], fontsize=8)
        row[2].get_xticklabels()[int(labels[line])].set_fontweight("bold")
        row[2].set_ylim(0, 100)
        row[2].set_ylabel("passes, %", fontsize=8)
    grid[0][2].legend(frameon=False, fontsize=8)
    figure.suptitle("votes on each image; the true class in bold")
    save_figure(figure, path)


def image_grid(columns: Mapping[str, Images], captions: Sequence[str], path: Path) -> None:
    """Draw images in named columns, with a caption for each line.

    Args:
        columns: (N, C, H, W) in [0, 1] by name.
        captions: (N,).
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


def sheet_of_classes(data: ImageData, path: Path, each: int = 8, most: int = 20) -> None:
    """Draw the first ``each`` images of up to ``most`` classes, a line for each class."""
    shown = range(min(most, len(data.classes)))
    lines = [_strip(data[(data.labels == label).nonzero().flatten()[:each]].images, each)
             for label in shown]  # fmt: skip
    figure = Figure(figsize=(0.9 * each + 1.6, 0.9 * len(shown) + 0.6), layout="constrained")
    panel = figure.subplots()  # one for all images: a panel for each would take seconds
    _show(panel, torch.cat(lines, dim=1))
    height = lines[0].shape[1]
    names = [_short(label_text(data.classes[label])) for label in shown]
    panel.set_yticks([(line + 0.5) * height - 0.5 for line in shown], names, fontsize=8)
    panel.tick_params(length=0)
    for spine in panel.spines.values():
        spine.set_visible(False)
    left_out = len(data.classes) - len(shown)
    more = f", and {left_out} classes more" if left_out else ""
    figure.suptitle(f"{label_text(data.name)}: the first images of each class{more}", fontsize=10)
    save_figure(figure, path)


def _strip(images: Images, places: int) -> Tensor:
    """Return up to ``places`` images side by side, (C, H + gap, places * (W + gap)) on white."""
    gap = max(1, images.shape[-1] // 16)
    framed = functional.pad(images, (0, gap, 0, gap), value=1.0)
    blank = framed.new_ones(places - len(framed), *framed.shape[1:])
    return torch.cat([*framed, *blank], dim=-1)


def _short(name: str, longest: int = 32) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _show(panel: Axes, picture: Tensor) -> None:
    shown = picture.detach().cpu().float().clamp(0, 1).permute(1, 2, 0).numpy().squeeze()
    panel.imshow(shown, cmap="gray", vmin=0, vmax=1)
    panel.set_xticks([])
    panel.set_yticks([])
