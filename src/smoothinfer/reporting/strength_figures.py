"""Figures of learned noise: the strength of each layer's, over epochs or at the end."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl

from smoothinfer.reporting.figures import COLOURS, label_text, save_figure, single_panel


def strength_history(history: Mapping[str, Mapping[str, float]], path: str | Path) -> None:
    """Draw the strength of each layer's learned noise after every epoch.

    Args:
        history: {epoch: {weight: noise standard deviation in multiples of the weight's own}}.
    """
    epochs = sorted(history, key=int)
    layers = list(history[epochs[-1]])
    title = "learned noise, a line for each layer from the first to the last"
    figure, panel = single_panel((7.0, 4.2), "epoch", title)
    shades = mpl.colormaps["viridis"]
    for place, layer in enumerate(layers):
        values = [history[epoch].get(layer, float("nan")) for epoch in epochs]
        shade = shades(place / max(1, len(layers) - 1))
        label = layer if place in (0, len(layers) - 1) else None
        panel.plot([int(epoch) for epoch in epochs], values, color=shade, marker=".", label=label)
    panel.set_ylabel("std of the noise / std of the weight")
    panel.legend(frameon=False, fontsize=8)
    save_figure(figure, path)


def strength_bars(strengths: Mapping[str, float], path: str | Path) -> None:
    """Draw the strength of each layer's learned noise, the first layer on top.

    Args:
        strengths: {place: noise standard deviation in multiples of the disturbed tensor's}.
    """
    names = list(strengths)
    axis = "std of the noise / std of the disturbed tensor"
    figure, panel = single_panel((6.4, 0.9 + 0.24 * len(names)), axis, "learned noise by layer")
    panel.barh(range(len(names)), list(strengths.values()), color=COLOURS[0])
    panel.set_yticks(range(len(names)), [*map(label_text, names)], fontsize=8)
    panel.invert_yaxis()
    save_figure(figure, path)
