"""The sections of a report's page; whatever a folder says is escaped, see the package."""

import base64
import json
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from smoothinfer.evaluation.audit.finding import STATES
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.reporting.collect import (
    MEASURES,
    Record,
    Source,
    common_text,
    records_table,
    varying,
)
from smoothinfer.reporting.glance import at_a_glance
from smoothinfer.reporting.pictures import Picture, shrunk
from smoothinfer.reporting.result_tables import certified_table
from smoothinfer.reporting.standing_tables import standing_table
from smoothinfer.reporting.tables import Table, ball_text, interval_text
from smoothinfer.reporting.votes import class_text, first_votes, vote_text
from smoothinfer.runtime.printable import printable

_MOST = 400  # lines of a table; the curves show the rest
_PICTURES = 40
REPEAT = Markup(
    "<p>The command of each folder, and its settings with versions; the same command with the same "
    "seed gives the same rows.</p>"
)
_AUDIT = Markup("""<p class="{state}"><strong>
{model}: {verdict}</strong></p>
<p>Accuracy of the vote, %: clean {clean}, attacked {attacked} (95 % over images). Direct attack:
{how}.</p>
<details open><summary>the checks</summary>{table}<p class="small">{states}.</p></details>""")
_PICTURE = Markup("""<figure><img alt="{kind}, {name}" src="data:image/webp;base64,{content}">
<figcaption class="small">{name}</figcaption></figure>""")


def glance_section(sources: Sequence[Source]) -> list[Markup]:
    """Return the verdict in words, and models against attacks."""
    rows = {source.name: source.rows for source in sources if source.rows is not None}
    said, tables = at_a_glance(rows)
    if not tables:
        return []
    shown = [table.html(table.title, row_heads=True) for table in tables]
    return [Markup('<p class="verdict">{}</p>').format(said), *shown]


def comparison_section(source: Source) -> Markup:
    """Return a table or figure of the paper beside ours."""
    comparison = source.comparison
    assert comparison is not None
    drawn = [picture for picture in source.pictures if picture.name in comparison.figures]
    heading = Markup("<h3>{}</h3><p>{}</p>").format(comparison.title, comparison.description)
    table = comparison.table.html(comparison.title, row_heads=True) if comparison.lines else ""
    notes = [Markup("<p>{}</p>").format(note) for note in comparison.notes]
    return Markup("\n").join([heading, table, *notes, *(_picture(source, p) for p in drawn)])


def audit_section(source: Source) -> Markup:
    """Return the verdict of an audit, and its checks."""
    audit = source.audit or {}
    lines = [
        [str(f["number"]), f["name"], f["state"], f["measured"], f["verdict"], f["threshold"]]
        for f in audit["findings"]
    ]
    heads = ["", "check", "state", "measured", "verdict", "fires when"]
    states = {(at, 2): {"class": line[2]} for at, line in enumerate(lines)}
    about = audit["about"]
    return _AUDIT.format(
        state=audit_state(audit),
        states=STATES,
        model=audit["model"],
        verdict=audit["verdict"],
        clean=interval_text(audit["clean"]),
        attacked=interval_text(audit["attacked"]),
        how=f"{about['direct']}; {ball_text(about['ball'])}; {about['samples']} passes at most",
        table=Table(heads, lines, left=6).html(kind="wrap", attributes=states),
    )


def standing_section(source: Source) -> Markup:
    """Return the three numbers under each attack, and what they say."""
    assert source.standing is not None
    table = standing_table(source.standing)
    text = Markup("<h3>{}</h3>\n<p>{}</p>\n{}")
    shown = table.html(table.title, "wrap", row_heads=True)
    return text.format(source.name, source.standing["verdict"], shown)


def audit_state(audit: dict[str, Any]) -> str:
    """Return the state of a whole audit: ``"alarm"``, ``"note"`` of too few images, ``"clear"``."""
    too_few = any(finding.get("too_few") for finding in audit["findings"])
    return "alarm" if audit["fired"] else "note" if too_few else "clear"


def records_section(name: str, found: list[Record]) -> Markup:
    """Return all settings of one folder, the most robust first."""
    shown, note = found, ""
    if len(found) > _MOST:
        most = max(record["samples"] for record in found)
        shown = [record for record in found if record["samples"] == most][:_MOST]
        note = f" {len(shown)} of {len(found)} settings, at {most} samples; the curves show all."
    names = varying(found)
    shown = sorted(shown, key=lambda record: -(record["attacked"] or record["clean"])["value"])
    attributes = {
        (line, len(names) + at): {"data-value": record[measure]["value"]}
        for line, record in enumerate(shown)
        for at, measure in enumerate(MEASURES)
        if record[measure]
    }
    table = records_table(shown, names)
    text = table.html(common_text(found, names) + note, "sortable", attributes)
    return Markup("<h3>{}</h3>\n{}").format(name, text)


def certificates_section(sources: Sequence[Source]) -> list[Markup]:
    """Return the certified accuracy at each radius, a table for each folder that has any."""
    parts = []
    for source in sources:
        if source.certified is not None:
            table = certified_table(source.certified)
            text = Markup("<h3>Certificates: {}</h3>\n{}")
            parts.append(text.format(source.name, table.html(table.title)))
            if note := source.certified.get("note"):
                parts.append(Markup('<p class="small">Note: {}.</p>').format(note))
    return parts


def board_section(source: Source) -> Markup:
    """Return the ranking of a leaderboard, the vote under each attack, and the claims."""
    assert source.board is not None
    tables = [t.html(t.title, "wrap", row_heads=True) for t in source.board.tables() if t.lines]
    return Markup("\n").join([Markup("<h3>{}</h3>").format(source.name), *tables])


def bytes_of(sources: Sequence[Source]) -> int:
    """Return the size of the pictures that stand with comparisons."""
    return sum(
        len(shrunk(picture.content))
        for source in sources
        if source.comparison
        for picture in source.pictures
        if picture.name in source.comparison.figures
    )


def pictures_section(sources: Sequence[Source], room: int) -> list[Markup]:
    """Return as many pictures as fit into ``room`` bytes; the folder of the report has all."""
    shown = [(source, each) for source in sources for each in _own_pictures(source)]
    parts = []
    for number, (source, picture) in enumerate(shown):
        room -= len(shrunk(picture.content))
        if room < 0 or number == _PICTURES:
            more = f"{len(shown) - number} pictures more are in the folder figures/."
            parts.append(Markup('<p class="small">{}</p>').format(more))
            break
        parts.append(_picture(source, picture))
    voted = [s for s in sources if s.rows and any(each.sheet for each in s.pictures)]
    lines = [f"{source.name}: {line}" for source in sources for line in source.left_out]
    left_out = Markup('<p class="small">Left out of {}</p>')
    return [*parts, *map(_votes, voted), *(left_out.format(line) for line in lines)]


def _own_pictures(source: Source) -> list[Picture]:
    """Return the pictures that are not shown with a comparison."""
    drawn = source.comparison.figures if source.comparison else []
    return [picture for picture in source.pictures if picture.name not in drawn]


def _picture(source: Source, picture: Picture) -> Markup:
    return _PICTURE.format(
        kind="adversarial examples" if picture.sheet else "a drawing",
        name=f"{source.name}: {picture.stem}",
        content=base64.b64encode(shrunk(picture.content)).decode(),
    )


def _votes(source: Source) -> Markup:
    """Return a table of the votes on the images of the sheets."""
    assert source.rows is not None
    classes = (source.settings.get("data") or {}).get("classes") or []
    votes = first_votes(source.rows)
    heads = ["image", "is", *("clean" if name == CLEAN else name for name in votes)]
    lines = []
    for image, row in votes[CLEAN].items():
        cells = [str(image), class_text(row["label"], classes)]
        lines.append(cells + [vote_text(part.get(image), classes) for part in votes.values()])
    caption = f"{source.name}: the winner of the vote on the first images, and its passes."
    return Table(heads, lines, left=len(heads)).html(caption)


def settings_section(source: Source) -> Markup:
    """Return the command of a folder, its machine and its settings."""
    if source.comparison is not None and not source.settings:
        return Markup("")  # its parts say how
    settings: Any = source.settings or (source.audit or {}).get("settings") or {}
    parts = [Markup("<h3>{}</h3>").format(printable(str(source.path)))]
    if command := settings.get("command"):
        parts.append(Markup("<pre>{}</pre>").format(command))
    if computers := settings.get("computers"):
        parts.append(Markup("<p>Computed with {}.</p>").format("; ".join(computers)))
    details = Markup("<details><summary>settings</summary><pre>{}</pre></details>")
    parts.append(details.format(json.dumps(settings, indent=1, default=str)))
    return Markup("").join(parts)
