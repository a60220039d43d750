"""One self-contained page: records as data, drawn by a script of its own; no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.reporting.collect import (
    MEASURES,
    NOTE,
    Record,
    Source,
    common,
    interval,
    share,
    varying,
)
from smoothinfer.reporting.tables import told
from smoothinfer.reporting.votes import first_votes, vote_told

_MOST = 400  # lines of a table; more are summarised by the curves
_PICTURES = 40


def page_of(
    title: str,
    sources: Sequence[Source],
    found: dict[str, list[Record]],
) -> str:
    """Return the HTML of a report.

    Args:
        title: of the page.
        sources: what was read.
        found: the records of each source that has rows.
    """
    every = [{"source": name, **record} for name, part in found.items() for record in part]
    names = list(dict.fromkeys(name for record in every for name in record))
    data = [{name: record.get(name) for name in names} for record in every]
    parts = files("smoothinfer.reporting.page")
    style, script = (parts.joinpath(f"page.{kind}").read_text() for kind in ("css", "js"))
    body = "\n".join(
        [
            _comparisons(sources),
            _verdicts(sources),
            _curves(every),
            '<h2 id="tables">Tables</h2>',
            *(_table(name, part) for name, part in found.items()),
            *(_certified(source) for source in sources if source.certified),
            _pictures(sources),
            _repeat(sources),
        ]
    )
    compared = any(source.comparison is not None for source in sources)
    paper = '<a href="#comparisons">The paper</a>' if compared else ""
    # "</script" or "<!--" would change where the script element ends.
    held = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>
{style}</style></head><body>
<h1>{html.escape(title)}</h1>
<nav aria-label="sections">{paper}<a href="#verdicts">Audit</a>
<a href="#curves-title">Curves</a>
<a href="#tables">Tables</a><a href="#pictures">Pictures</a><a href="#repeat">Repeat it</a></nav>
<p>{NOTE}</p>
<main>
{body}
</main>
<script type="application/json" id="data">{held}</script>
<script>
{script}</script></body></html>
"""


def _comparisons(sources: Sequence[Source]) -> str:
    parts = [_comparison(source) for source in sources if source.comparison is not None]
    return "\n".join(['<h2 id="comparisons">Beside the paper</h2>', *parts]) if parts else ""


def _compared(name: str, *cells: str) -> str:
    head = f'<th scope="row">{html.escape(name)}</th>'
    return head + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)


def _comparison(source: Source) -> str:
    held = source.comparison
    assert held is not None
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in held.heads)
    lines = "\n".join(f"<tr>{_compared(*line)}</tr>" for line in held.lines)
    table = f"""<div class="scroll"><table><caption>{html.escape(held.title)}</caption>
<thead><tr>{heads}</tr></thead><tbody>{lines}</tbody></table></div>"""
    drawn = [path for path in source.pictures if path.name in held.figures]
    return "\n".join(
        [
            f"<h3>{html.escape(held.title)}</h3><p>{html.escape(held.about)}</p>",
            table if held.lines else "",
            *(f"<p>{html.escape(note)}</p>" for note in held.notes),
            *(_picture(source, path) for path in drawn),
        ]
    )


def _verdicts(sources: Sequence[Source]) -> str:
    audits = [source for source in sources if source.audit is not None]
    found = "\n".join(_audit(source) for source in audits)
    none = "<p>None of these models was audited: <code>smoothinfer audit MODEL</code> tells real "
    none += "robustness from masked gradients and chance.</p>"
    return f'<h2 id="verdicts">Audit</h2>\n{found or none}'


def _audit(source: Source) -> str:
    audit = source.audit or {}
    rows = "\n".join(
        f"<tr><td>{finding['number']}</td><td>{html.escape(finding['name'])}</td>"
        f'<td class="{finding["state"]}">{finding["state"]}</td>'
        f"<td>{html.escape(finding['measured'])}</td><td>{html.escape(finding['verdict'])}</td></tr>"
        for finding in audit["findings"]
    )
    state = "alarm" if audit["fired"] else "clear"
    heads = "".join(
        f'<th scope="col">{h}</th>' for h in ("", "check", "state", "measured", "verdict")
    )
    return f"""<p class="{state}"><strong>{html.escape(str(audit["model"]))}:
{html.escape(audit["verdict"])}</strong></p>
<details><summary>the thirteen checks</summary><div class="scroll"><table class="wrap">
<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div></details>"""


def _curves(every: list[Record]) -> str:
    if not every:
        return ""
    return '<h2 id="curves-title">Curves</h2>\n<div id="curves"></div>'


def _table(name: str, part: list[Record]) -> str:
    names = varying(part)
    shown, note = part, ""
    if len(part) > _MOST:
        most = max(record["samples"] for record in part)
        shown = [record for record in part if record["samples"] == most][:_MOST]
        note = f" {len(shown)} of {len(part)} settings, at {most} samples; the curves hold all."
    heads = "".join(f'<th scope="col">{html.escape(n)}</th>' for n in names)
    heads += "".join(f'<th scope="col" class="number">{measure}</th>' for measure in MEASURES)
    lines = "\n".join(_line(record, names) for record in shown)
    caption = html.escape(common(part, names)) + note
    return f"""<h3>{html.escape(name)}</h3>
<div class="scroll"><table class="sortable"><caption>{caption}</caption>
<thead><tr>{heads}</tr></thead><tbody>
{lines}
</tbody></table></div>"""


def _line(record: Record, names: list[str]) -> str:
    cells = [f"<td>{html.escape(told(record[name]))}</td>" for name in names]
    for measure in MEASURES:
        held = record[measure]
        value = held["value"] if held else ""
        cells.append(f'<td class="number" data-value="{value}">{share(held)}</td>')
    return f"<tr>{''.join(cells)}</tr>"


def _certified(source: Source) -> str:
    held = source.certified or {}
    lines = "".join(
        f"<tr><td>{each['radius']:g}</td><td>{interval(each)}</td></tr>"
        for each in held["certified accuracy"]
    )
    mean = held["average radius"]
    told_mean = "" if mean is None else f"; mean radius {mean:.4f}"
    return f"""<h3>Certificates: {html.escape(source.name)}</h3>
<table><caption>{held["images"]} images, abstained on {held["abstained"]}{told_mean}</caption>
<thead><tr><th scope="col">L2 radius</th>
<th scope="col">certified accuracy, %</th></tr></thead><tbody>{lines}</tbody></table>"""


def _pictures(sources: Sequence[Source]) -> str:
    shown = [(source, path) for source in sources for path in _own(source)][:_PICTURES]
    parts = [_picture(source, path) for source, path in shown]
    parts += [_votes(source) for source in sources if source.rows and source.sheets]
    return '<h2 id="pictures">Pictures</h2>\n' + ("\n".join(parts) or "<p>There are none.</p>")


def _own(source: Source) -> list[Path]:
    """Return the pictures that do not stand with a comparison."""
    drawn = source.comparison.figures if source.comparison else []
    return [path for path in source.pictures if path.name not in drawn]


def _picture(source: Source, path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(f"{source.name}: {path.stem}")
    what = "adversarial examples" if path in source.sheets else "a drawing"
    return f"""<figure><img alt="{what}, {name}" src="data:image/png;base64,{content}">
<figcaption class="small">{name}</figcaption></figure>"""


def _votes(source: Source) -> str:
    """Say in words how the passes voted on the images of the sheets."""
    assert source.rows is not None
    classes = source.settings.get("data", {}).get("classes", [])
    votes = first_votes(source.rows)
    heads = ["image", "is", *("clean" if name == CLEAN else name for name in votes)]
    lines = []
    for image, row in votes[CLEAN].items():
        label = row["label"]
        cells = [str(image), classes[label] if label < len(classes) else str(label)]
        cells += [vote_told(held.get(image), classes) for held in votes.values()]
        lines.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in heads)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f"""<div class="scroll"><table><caption>{html.escape(source.name)}: what won the vote on
the first images, and with how many of the passes.</caption>
<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"""


def _repeat(sources: Sequence[Source]) -> str:
    parts = []
    for source in sources:
        if source.comparison is not None and not source.settings:
            continue  # its parts say how
        settings: Any = source.settings or (source.audit or {}).get("settings") or {}
        settings = settings or (source.certified or {}).get("settings") or {}
        command = settings.get("command", "")
        line = f"<pre>{html.escape(command)}</pre>" if command else ""
        if computers := settings.get("computers"):
            line += f"<p>Computed with {html.escape('; '.join(computers))}.</p>"
        text = html.escape(json.dumps(settings, indent=1, default=str))
        name = html.escape(str(source.path))
        parts.append(
            f"<h3>{name}</h3>{line}<details><summary>settings</summary><pre>{text}</pre></details>"
        )
    return (
        '<h2 id="repeat">Repeat it</h2>\n<p>The command of each folder, and its settings with '
        "versions; the same command with the same seed gives the same rows.</p>\n"
        + "\n".join(parts)
    )
