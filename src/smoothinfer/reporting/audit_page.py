"""One page for an audit: Markdown, HTML that needs nothing else, and the numbers as JSON."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from smoothinfer.evaluation.audit import Audit, Finding
from smoothinfer.runtime.files import write_json, write_whole

_SIGNS = {"clear": "clear", "note": "note", "alarm": "ALARM", "skipped": "skipped"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; overflow-wrap: anywhere }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .5rem .6rem;
  border-bottom: 1px solid #ccc }
.state { font-weight: 600; white-space: nowrap }
.alarm { color: #a40000 } .clear { color: #00633a } .note { color: #7a4b00 }
.skipped { color: #555 }
.small { color: #444; font-size: .9rem }
@media (max-width: 40rem) { th { display: none } td { display: block; border: 0; padding: .1rem 0 }
  tr { display: block; border-bottom: 1px solid #ccc; padding: .6rem 0 } }
@media print { body { margin: 0; max-width: none } tr { break-inside: avoid } }
"""


def write_audit(found: Audit, folder: str | Path, name: str, settings: dict[str, Any]) -> None:
    """Write ``audit.md``, ``audit.html`` and ``audit.json`` into ``folder``.

    Args:
        found: the audit.
        name: what the page calls the model.
        settings: how the audit was asked for, and versions.
    """
    folder = Path(folder)
    pages = {"audit.md": _markdown(found, name), "audit.html": _page(found, name, settings)}
    for file_name, text in pages.items():
        _write(folder / file_name, text)
    record = {
        "model": name,
        "verdict": found.verdict,
        "fired": [finding.number for finding in found.fired],
        "clean": found.clean.as_dict(),
        "attacked": found.attacked.as_dict(),
        "findings": [finding.as_dict() for finding in found.findings],
        "about": found.about,
        "settings": settings,
    }
    write_json(folder / "audit.json", record)


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))


def print_audit(console: Console, found: Audit) -> None:
    """Print the findings and the verdict."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("", "check", "state", "measured"):
        table.add_column(heading, overflow="fold")
    styles = {"alarm": "bold red", "note": "yellow", "clear": "green", "skipped": "dim"}
    for finding in found.findings:
        state = f"[{styles[finding.state]}]{_SIGNS[finding.state]}[/]"
        table.add_row(str(finding.number), finding.name, state, finding.measured)
    console.print(table)
    for finding in found.fired:
        console.print(f"{finding.number}. {finding.verdict}", highlight=False, markup=False)
    console.print(
        f"clean {found.clean}, attacked {found.attacked} %. {found.verdict}", highlight=False
    )


def _markdown(found: Audit, name: str) -> str:
    lines = [
        f"# Audit of {name}",
        "",
        f"**{found.verdict}**",
        "",
        f"Accuracy of the vote, %: clean {found.clean}, attacked {found.attacked} "
        f"({found.about['direct']}, {found.about['ball']}), on {found.about['images']} images.",
        "",
        "| | check | state | measured | fires when | verdict |",
        "| ---: | :--- | :--- | :--- | :--- | :--- |",
    ]
    for f in found.findings:
        cells = (str(f.number), f.name, _SIGNS[f.state], f.measured, f.threshold, f.verdict)
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _page(found: Audit, name: str, settings: dict[str, Any]) -> str:
    rows = "\n".join(_row(finding) for finding in found.findings)
    about = found.about
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit of {html.escape(name)}</title><style>{_STYLE}</style></head><body>
<h1>Audit of {html.escape(name)}</h1>
<p class="{"alarm" if found.fired else "clear"}"><strong>{html.escape(found.verdict)}</strong></p>
<p>Accuracy of the vote, %: clean {found.clean}, attacked {found.attacked} (95 % intervals over
{about["images"]} images). Direct attack: {html.escape(about["direct"])};
{html.escape(about["ball"])}; {about["samples"]} passes at most, rule {html.escape(about["rule"])},
seed {about["seed"]}.</p>
<table><thead><tr><th></th><th scope="col">check</th><th scope="col">state</th>
<th scope="col">measured</th><th scope="col">verdict</th></tr></thead><tbody>
{rows}
</tbody></table>
<p class="small">{html.escape(str(settings))}</p>
</body></html>
"""


def _row(finding: Finding) -> str:
    done = f"{finding.procedure}; fires when: {finding.threshold}"
    return (
        f'<tr><td>{finding.number}</td><td>{html.escape(finding.name)}<br><span class="small">'
        f'{html.escape(done)}</span></td><td class="state {finding.state}">'
        f"{_SIGNS[finding.state]}</td><td>{html.escape(finding.measured)}</td>"
        f"<td>{html.escape(finding.verdict)}</td></tr>"
    )
