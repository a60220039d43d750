"""One sheet of paper for readers who decide: the verdict, a picture, a table, the words."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from smoothinfer.evaluation.judgement import leads_clearly
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.collect import Source
from smoothinfer.reporting.figures import COLOURS, label_text, png_of, single_panel
from smoothinfer.reporting.glance import Line, by_strength, compared_groups, verdict
from smoothinfer.reporting.result_tables import certified_table, nearest_certified
from smoothinfer.reporting.tables import Table, interval_text
from smoothinfer.types import CLEAN

_MOST, _CERTIFIED, _RADII, _NAME = 8, 2, 6, 48
_WORDS = Markup("""<ul>
<li><strong>Clean</strong>: unchanged test images. <strong>Attacked</strong>: images that an
attacker changed so little that people do not see it, to make the model err.</li>
<li><strong>Worst case</strong>: an image counts only if the model is right on it unchanged and
under every attack that was tried. A stronger attack may leave less.</li>
<li><strong>Vote</strong>: a model with noise is run many times, and its answers are counted.</li>
<li><strong>Radius</strong>: the length of a change, over all pixels in [0, 1].</li>
<li>Numbers in brackets are 95 % intervals over images: the true figure lies in there 19 times of
20. Two models whose intervals overlap much may be equally good.</li>
</ul>""")
_PICTURE = Markup('<img alt="{}" src="data:image/png;base64,{}">')


def sheet_sections(sources: Sequence[Source]) -> list[tuple[str, str, list[Markup]]]:
    """Return the sections of the sheet; none if no folder holds a comparison or certificates.

    Args:
        sources: the contents of the folders.
    """
    rows = {source.name: source.rows for source in sources if source.rows is not None}
    lines = next(iter(compared_groups(rows)), [])
    shown = [_bar(line) for line in by_strength(lines)] or _of_boards(sources)
    certified = [s.certified for s in sources if s.certified is not None][:_CERTIFIED]
    if not shown and not certified:
        return []
    verdicts = [_paragraph(verdict(lines) if lines else _ranked(shown))] if shown else []
    verdicts += [_paragraph(_proved(each)) for each in certified if each["certified accuracy"]]
    left = f"The {_MOST} most robust of {len(shown)}." if len(shown) > _MOST else ""
    shown = shown[:_MOST]
    tables = [_few(certified_table(each)) for each in certified]
    return [
        ("verdict", "Verdict", verdicts),
        ("accuracy", "Accuracy", [_drawn(shown), _table(shown, left)] if shown else []),
        ("certified", "Proved", [table.html(table.title) for table in tables]),
        ("words", "How to read it", [_WORDS, _paragraph(_about(lines, sources))]),
    ]


Bar = tuple[str, Interval, Interval]  # model, clean, worst case


def _bar(line: Line) -> Bar:
    return line.name, line.accuracies[CLEAN], line.worst


def _of_boards(sources: Sequence[Source]) -> list[Bar]:
    """Return a bar for each card of a leaderboard."""
    bars = []
    for card in (card for source in sources if source.board for card in source.board.cards):
        clean = next((s["vote"] for s in card["standings"] if s["attack"] == CLEAN), None)
        if clean is not None:
            bars.append((card["name"], Interval(**clean), Interval(**card["worst case"])))
    return bars


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


def _proved(certified: dict[str, Any]) -> str:
    """Say what is proved at the radius nearest to 0.5."""
    entry = nearest_certified([certified])
    model = certified_table(certified).title.partition(",")[0]
    return (
        f"{model} is right on {interval_text(entry)} % of {certified['images']} images, and it is "
        f"proved that no change up to radius {entry['radius']:g} alters the answer there."
    )


def _few(table: Table) -> Table:
    """Return the table with at most six lines, spread over all."""
    step = -(-len(table.lines) // _RADII)
    return replace(table, lines=table.lines[::step])


def _table(bars: Sequence[Bar], left: str) -> Markup:
    rows = [[name, str(clean), str(worst)] for name, clean, worst in bars]
    heads = ["model", "clean, %", "worst case, %"]
    return Table(heads, rows, left=1).html(left, row_heads=True)


def _drawn(bars: Sequence[Bar]) -> Markup:
    """Return a picture: two bars for each model, the most robust on top."""
    figure, panel = single_panel((7.2, 0.9 + 0.36 * len(bars)), "accuracy, %", "")
    for place, (_, clean, worst) in enumerate(bars):
        for shift, each, colour in ((-0.2, clean, COLOURS[5]), (0.2, worst, COLOURS[0])):
            sides = [[100 * (each.value - each.low)], [100 * (each.high - each.value)]]
            label = None if place else ("clean" if each is clean else "worst case")
            style: Any = {"height": 0.38, "color": colour, "label": label, "ecolor": "#555"}
            panel.barh(place + shift, 100 * each.value, xerr=sides, **style)
    panel.set_yticks(range(len(bars)), [_short(name) for name, *_ in bars], fontsize=8)
    panel.set_xlim(0, 100)
    panel.invert_yaxis()
    panel.legend(frameon=False, fontsize=8, loc="lower right")
    alt = "; ".join(f"{name}: clean {clean} %, worst case {worst} %" for name, clean, worst in bars)
    return _PICTURE.format(alt, base64.b64encode(png_of(figure)).decode())


def _short(name: str) -> str:
    shown = label_text(name)
    return shown if len(shown) <= _NAME else shown[: _NAME - 1] + "…"


def _about(lines: Sequence[Line], sources: Sequence[Source]) -> str:
    """Say what was measured, and where the figures are."""
    boards = [source.board.subject for source in sources if source.board]
    subjects = [lines[0].subject] if lines else boards
    measured = f"Measured on {'; '.join(subjects)}. " if any(subjects) else ""
    return f"{measured}All figures and the commands behind them: index.html."


def _paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>").format(text)
