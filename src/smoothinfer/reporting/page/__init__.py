"""One self-contained page: records as data, drawn by a script of its own; no network."""

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.reporting.collect import (
    MEASURES,
    NOTE,
    Record,
    Source,
    common_text,
    records_table,
    varying,
)
from smoothinfer.reporting.tables import Table, interval_text
from smoothinfer.reporting.votes import first_votes, vote_text

_MOST = 400  # lines of a table; the curves show the rest
_PICTURES = 40


def page_of(title: str, sources: Sequence[Source], found: dict[str, list[Record]]) -> str:
    """Return the HTML of a report.

    Args:
        title: of the page.
        sources: the contents of the folders.
        found: the records of each source that has rows.
    """
    every = [{"source": name, **record} for name, part in found.items() for record in part]
    names = list(dict.fromkeys(name for record in every for name in record))
    data = [{name: record.get(name) for name in names} for record in every]
    parts = files("smoothinfer.reporting.page")
    style, script = (parts.joinpath(f"page.{kind}").read_text() for kind in ("css", "js"))
    sections = [
        ("comparisons", "Beside the paper", [_comparison(s) for s in sources if s.comparison]),
        ("verdicts", "Audit", [_audit(s) for s in sources if s.audit] or [_NO_AUDIT]),
        ("curves-title", "Curves", ['<div id="curves"></div>'] if every else []),
        ("tables", "Tables", [*map(_records, found, found.values()), *_certificates(sources)]),
        ("pictures", "Pictures", _pictures(sources)),
        ("repeat", "Repeat it", [_REPEAT, *(_settings(s) for s in sources)]),
    ]
    shown = [section for section in sections if section[2]]
    links = "\n".join(f'<a href="#{name}">{head}</a>' for name, head, _ in shown)
    body = "\n".join(
        "\n".join([f'<h2 id="{name}">{head}</h2>', *content]) for name, head, content in shown
    )
    # "</script" or "<!--" would change where the script element ends.
    embedded = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>
{style}</style></head><body>
<h1>{escape(title)}</h1>
<nav aria-label="sections">{links}</nav>
<p>{NOTE}</p>
<main>
{body}
</main>
<script type="application/json" id="data">{embedded}</script>
<script>
{script}</script></body></html>
"""


_NO_AUDIT = (
    "<p>None of these models was audited: <code>smoothinfer audit MODEL</code> tells real "
    "robustness from masked gradients and chance.</p>"
)
_REPEAT = (
    "<p>The command of each folder, and its settings with versions; the same command with the same "
    "seed gives the same rows.</p>"
)


def _comparison(source: Source) -> str:
    comparison = source.comparison
    assert comparison is not None
    drawn = [path for path in source.pictures if path.name in comparison.figures]
    return "\n".join(
        [
            f"<h3>{escape(comparison.title)}</h3><p>{escape(comparison.description)}</p>",
            comparison.table.html(comparison.title, row_heads=True) if comparison.lines else "",
            *(f"<p>{escape(note)}</p>" for note in comparison.notes),
            *(_picture(source, path) for path in drawn),
        ]
    )


def _audit(source: Source) -> str:
    audit = source.audit or {}
    lines = [
        [str(f["number"]), f["name"], f["state"], f["measured"], f["verdict"], f["threshold"]]
        for f in audit["findings"]
    ]
    heads = ["", "check", "state", "measured", "verdict", "fires when"]
    states = {(at, 2): f' class="{escape(line[2])}"' for at, line in enumerate(lines)}
    table = Table(heads, lines, left=6).html(kind="wrap", attributes=states)
    clean, attacked = (interval_text(audit[name]) for name in MEASURES)
    about = audit["about"]
    how = f"{about['direct']}; {about['ball']}; {about['samples']} passes at most"
    return f"""<p class="{"alarm" if audit["fired"] else "clear"}"><strong>
{escape(str(audit["model"]))}: {escape(audit["verdict"])}</strong></p>
<p>Accuracy of the vote, %: clean {clean}, attacked {attacked} (95 % over images). Direct attack:
{escape(how)}.</p>
<details open><summary>the checks</summary>{table}</details>"""


def _records(name: str, found: list[Record]) -> str:
    shown, note = found, ""
    if len(found) > _MOST:
        most = max(record["samples"] for record in found)
        shown = [record for record in found if record["samples"] == most][:_MOST]
        note = f" {len(shown)} of {len(found)} settings, at {most} samples; the curves show all."
    names = varying(found)
    attributes = {
        (line, len(names) + at): f' data-value="{record[measure]["value"]}"'
        for line, record in enumerate(shown)
        for at, measure in enumerate(MEASURES)
        if record[measure]
    }
    table = records_table(shown, names)
    text = table.html(common_text(found, names) + note, "sortable", attributes)
    return f"<h3>{escape(name)}</h3>\n{text}"


def certified_table(certified: dict[str, Any]) -> Table:
    """Return the certified accuracies that ``certify`` wrote."""
    lines = [
        [f"{each['radius']:g}", interval_text(each)] for each in certified["certified accuracy"]
    ]
    return Table(["L2 radius", "certified accuracy, %"], lines)


def _certificates(sources: Sequence[Source]) -> list[str]:
    parts = []
    for source in sources:
        if source.certified is None:
            continue
        mean = source.certified["average radius"]
        caption = f"{source.certified['images']} images, abstained on "
        caption += f"{source.certified['abstained']}"
        caption += "" if mean is None else f"; mean radius {mean:.4f}"
        table = certified_table(source.certified).html(caption)
        parts.append(f"<h3>Certificates: {escape(source.name)}</h3>\n{table}")
    return parts


def _pictures(sources: Sequence[Source]) -> list[str]:
    shown = [(source, path) for source in sources for path in _own_pictures(source)][:_PICTURES]
    parts = [_picture(source, path) for source, path in shown]
    return parts + [_votes(source) for source in sources if source.rows and source.sheets]


def _own_pictures(source: Source) -> list[Path]:
    """Return the pictures that are not shown with a comparison."""
    drawn = source.comparison.figures if source.comparison else []
    return [path for path in source.pictures if path.name not in drawn]


def _picture(source: Source, path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    name = escape(f"{source.name}: {path.stem}")
    kind = "adversarial examples" if path in source.sheets else "a drawing"
    return f"""<figure><img alt="{kind}, {name}" src="data:image/png;base64,{content}">
<figcaption class="small">{name}</figcaption></figure>"""


def _votes(source: Source) -> str:
    """Return a table of the votes on the images of the sheets."""
    assert source.rows is not None
    classes = source.settings.get("data", {}).get("classes", [])
    votes = first_votes(source.rows)
    heads = ["image", "is", *("clean" if name == CLEAN else name for name in votes)]
    lines = []
    for image, row in votes[CLEAN].items():
        label = row["label"]
        cells = [str(image), classes[label] if label < len(classes) else str(label)]
        lines.append(cells + [vote_text(part.get(image), classes) for part in votes.values()])
    caption = f"{source.name}: the winner of the vote on the first images, and its passes."
    return Table(heads, lines, left=len(heads)).html(caption)


def _settings(source: Source) -> str:
    if source.comparison is not None and not source.settings:
        return ""  # its parts say how
    settings: Any = source.settings or (source.audit or {}).get("settings") or {}
    settings = settings or (source.certified or {}).get("settings") or {}
    command = settings.get("command", "")
    lines = [f"<pre>{escape(command)}</pre>"] if command else []
    if computers := settings.get("computers"):
        lines.append(f"<p>Computed with {escape('; '.join(computers))}.</p>")
    text = escape(json.dumps(settings, indent=1, default=str))
    lines.append(f"<details><summary>settings</summary><pre>{text}</pre></details>")
    return f"<h3>{escape(str(source.path))}</h3>" + "".join(lines)
