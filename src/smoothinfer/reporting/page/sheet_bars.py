"""The models of a sheet: groups that compare, as bars and as a table."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from smoothinfer.evaluation.judgement import leads_clearly
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.board import Board
from smoothinfer.reporting.figures import COLOURS, label_text, png_of, single_panel
from smoothinfer.reporting.glance import Line, by_strength, subject_of, verdict
from smoothinfer.reporting.tables import Table
from smoothinfer.types import CLEAN

_NAME = 48  # letters
_NAMED = 6  # of the models that are left out
_PICTURE = Markup('<img alt="{}" src="data:image/png;base64,{}">')

Bar = tuple[str, Interval, Interval]  # model, clean, worst case


@dataclass(frozen=True)
class Group:
    """Models that compare, the most robust first.

    Attributes:
        subject: data, radius, images.
        verdict: in words.
        bars: the models, each in one setting or more.
        models: of each bar.
    """

    subject: str
    verdict: str
    bars: Sequence[Bar]
    models: Sequence[str]


def group_of_lines(lines: list[Line]) -> Group:
    """Return the group of the lines of `compared_groups`."""
    ranked = by_strength(lines)
    bars = [(line.name, line.accuracies[CLEAN], line.worst) for line in ranked]
    return Group(subject_of(lines), verdict(lines), bars, [line.model for line in ranked])


def group_of_board(board: Board) -> Group:
    """Return the group of the cards of a leaderboard."""
    bars: list[Bar] = []
    for card in board.cards:
        (clean, *_) = (each["vote"] for each in card["standings"] if each["attack"] == CLEAN)
        bars.append((card["name"], Interval(**clean), Interval(**card["worst case"])))
    return Group(f"leaderboard: {board.subject}", _ranked(bars), bars, [name for name, *_ in bars])


def _ranked(bars: Sequence[Bar]) -> str:
    """Say which model of a leaderboard keeps most."""
    (name, clean, worst), *others = bars
    lead = ""
    if others:
        near = [other for other, _, each in others if not leads_clearly(worst, each)]
        lead = f" Of {len(bars)} compared it keeps most"
        lead += f"; its lead over {len(near)} of the others may be chance." if near else "."
    shown = f"{name} is right on {clean} % of the clean images and on {worst} % in the worst case"
    return f"{shown}.{lead}"


def fitting(groups: Sequence[Group], most: int) -> tuple[list[list[Bar]], str]:
    """Return the bars of each group that fit on the page, and a line that names the others.

    Every model keeps its best setting first, and every group its best model.

    Args:
        groups: of the sheet.
        most: number of bars in all.
    """
    places = [
        (group.models[:rank].count(model), rank, at)
        for at, group in enumerate(groups)
        for rank, model in enumerate(group.models)
    ]
    kept = {(rank, at) for _, rank, at in sorted(places)[:most]}
    shown = [
        [bar for rank, bar in enumerate(group.bars) if (rank, at) in kept]
        for at, group in enumerate(groups)
    ]
    names = [
        bar[0]
        for at, group in enumerate(groups)
        for rank, bar in enumerate(group.bars)
        if (rank, at) not in kept
    ]
    if not names:
        return shown, ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return shown, f"for room, {', '.join(names[:_NAMED])}{more}"


def bars_table(bars: Sequence[Bar], subject: str) -> Markup:
    """Return a table of models, clean and in the worst case."""
    rows = [[name, str(clean), str(worst)] for name, clean, worst in bars]
    heads = ["model", "clean, %", "worst case, %"]
    return Table(heads, rows, left=1).html(subject, row_heads=True)


def draw_bars(bars: Sequence[Bar]) -> Markup:
    """Return a picture: two bars for each model, the most robust on top."""
    figure, panel = single_panel((7.2, 1.1 + 0.36 * len(bars)), "accuracy, %", "")
    for place, (_, clean, worst) in enumerate(bars):
        for shift, each, colour in ((-0.2, clean, COLOURS[5]), (0.2, worst, COLOURS[0])):
            sides = [[100 * (each.value - each.low)], [100 * (each.high - each.value)]]
            label = None if place else ("clean" if each is clean else "worst case")
            style: Any = {"height": 0.38, "color": colour, "label": label, "ecolor": "#555"}
            panel.barh(place + shift, 100 * each.value, xerr=sides, **style)
    panel.set_yticks(range(len(bars)), [_short(name) for name, *_ in bars], fontsize=8)
    panel.set_xlim(0, 100)
    panel.invert_yaxis()
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    alt = "; ".join(f"{name}: clean {clean} %, worst case {worst} %" for name, clean, worst in bars)
    return _PICTURE.format(alt, base64.b64encode(png_of(figure)).decode())


def _short(name: str) -> str:
    shown = label_text(name)
    return shown if len(shown) <= _NAME else shown[: _NAME - 1] + "…"
