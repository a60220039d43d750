"""One sheet of paper for readers who decide: the verdict, a picture, a table, the words."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc
from markupsafe import Markup

from smoothinfer.reporting.collect import Source
from smoothinfer.reporting.glance import compared_groups, lines_of
from smoothinfer.reporting.page.sections import audit_state
from smoothinfer.reporting.page.sheet_bars import (
    Group,
    bars_table,
    draw_bars,
    fitting,
    group_of_board,
    group_of_lines,
)
from smoothinfer.reporting.page.sheet_words import explained
from smoothinfer.reporting.result_tables import certified_table, nearest_certified
from smoothinfer.reporting.tables import Table, interval_text, norm_name

_MOST, _CERTIFIED, _RADII, _VERDICTS = 8, 2, 6, 3
NO_SHEET = (
    "no model was measured both clean and attacked, audited, certified or put on a leaderboard"
)


def sheet_sections(sources: Sequence[Source]) -> list[tuple[str, str, list[Markup]]]:
    """Return the sections of the sheet; none if no folder holds what a decision may rest on.

    What there is no room for is named.

    Args:
        sources: the contents of the folders.
    """
    groups = _groups(sources)
    audits = [source.audit for source in sources if source.audit is not None]
    certified = [s.certified for s in sources if s.certified is not None]
    if not groups and not audits and not certified:
        return []
    shown, cut = fitting(groups, _MOST)
    verdicts = [*map(_audited, sorted(audits, key=lambda audit: not audit["fired"]))]
    verdicts += [_paragraph(group.verdict) for group in groups[:_VERDICTS]]
    proofs = certified[:_CERTIFIED]
    verdicts += [_paragraph(_proved(each)) for each in proofs if each["certified accuracy"]]
    pictures = [draw_bars(shown[0])] if groups else []
    tables = [
        bars_table(bars, group.subject) for group, bars in zip(groups, shown, strict=True) if bars
    ]
    if more := sum(len(group.bars) for group in groups) - sum(map(len, shown)):
        tables.append(_paragraph(f"{more} more in index.html."))
    proved = [table.html(table.title) for table in map(_few, map(certified_table, proofs))]
    left_out = [*([cut] if cut else []), *_left_out(sources)]
    notes = list(dict.fromkeys(each["note"] for each in proofs if each.get("note")))
    words = explained([*verdicts, *tables, *proved])
    about = [_paragraph(f"Left out: {'; '.join(left_out)}.")] if left_out else []
    about += [_paragraph(f"Note: {note}.") for note in notes]
    about.append(_paragraph("All figures and the commands behind them: index.html."))
    return [
        ("verdict", "Verdict", verdicts),
        ("accuracy", "Accuracy", [*pictures, *tables]),
        ("certified", "Proved", proved),
        ("words", "How to read it", [words, *about]),
    ]


def _groups(sources: Sequence[Source]) -> list[Group]:
    """Return what compares: leaderboards first, then the rows of the other folders."""
    rows = {source.name: source.rows for source in sources if source.rows is not None}
    boards = [group_of_board(source.board) for source in sources if source.board is not None]
    return [*boards, *map(group_of_lines, compared_groups(rows))]


def _left_out(sources: Sequence[Source]) -> Iterator[str]:
    """Yield what the sheet does not show, and why."""
    certified = [source.name for source in sources if source.certified is not None]
    for name in certified[_CERTIFIED:]:
        yield f"for room, the certificates of {name}"
    for source in sources:
        shown = (source.audit, source.certified, source.board)
        if source.rows is not None:
            yield from _not_compared(source)
        elif all(part is None for part in shown):
            yield f"{source.name}, which holds no rows of a model, no audit and no certificates"


def _not_compared(source: Source) -> Iterator[str]:
    """Yield the models of a folder that were not measured both clean and attacked."""
    assert source.rows is not None
    rows = source.rows
    names = pc.unique(rows["model"]).to_pylist() if "model" in rows.column_names else [None]
    found = [line.name for line in lines_of(source.name, rows)]
    for name in (str(each or source.name) for each in names):
        if not any(line == name or line.startswith(f"{name}, ") for line in found):
            yield f"{name} of {source.name}, which was not measured both clean and attacked"


def _audited(audit: dict[str, Any]) -> Markup:
    """Return the verdict of an audit, an alarm as such."""
    text = Markup(
        '<p class="{}"><strong>Audit of {}: {}</strong> '
        "The vote is right on {} % clean, on {} % under its direct attack.</p>"
    )
    figures = interval_text(audit["clean"]), interval_text(audit["attacked"])
    return text.format(audit_state(audit), audit["model"], audit["verdict"], *figures)


def _proved(certified: dict[str, Any]) -> str:
    """Say what is proved at the radius nearest to 0.5."""
    entry = nearest_certified([certified])
    model = certified_table(certified).title.partition(",")[0]
    norm = norm_name(certified.get("norm") or "l2")
    if entry["value"] == 0:
        return (
            f"For none of {certified['images']} images is it proved that {model} is right and "
            f"stays so under every change up to {norm} radius {entry['radius']:g}."
        )
    return (
        f"{model} is right on {interval_text(entry)} % of {certified['images']} images, and it is "
        f"proved that no change up to {norm} radius {entry['radius']:g} alters the answer there."
    )


def _few(table: Table) -> Table:
    """Return the table with at most six lines, spread over all."""
    step = -(-len(table.lines) // _RADII)
    return replace(table, lines=table.lines[::step])


def _paragraph(text: str) -> Markup:
    return Markup("<p>{}</p>").format(text)
