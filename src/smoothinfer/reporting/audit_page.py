"""The result of an audit: on the terminal, as Markdown, as a page, and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothinfer.evaluation.audit.finding import ALARM, NOTE, STATES
from smoothinfer.evaluation.audit.runner import Audit
from smoothinfer.reporting.collect import Source
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.members import printable_json
from smoothinfer.reporting.page import page_of
from smoothinfer.reporting.tables import Table, ball_text
from smoothinfer.runtime.files import write_json, write_text

if TYPE_CHECKING:
    from smoothinfer.runtime.terminal import Terminal


def write_audit(audit: Audit, folder: str | Path, name: str, settings: dict[str, Any]) -> None:
    """Write ``audit.md``, ``audit.html`` and ``audit.json`` into ``folder``.

    Args:
        audit: the result.
        name: of the model, for the page.
        settings: the command's arguments, and versions.
    """
    folder = Path(folder)
    content = {
        "model": name,
        "verdict": audit.verdict,
        "fired": [finding.number for finding in audit.fired],
        "clean": audit.clean.as_dict(),
        "attacked": audit.attacked.as_dict(),
        "findings": [finding.as_dict() for finding in audit.findings],
        "about": audit.about,
        "settings": settings,
    }
    shown = printable_json(content)
    source = Source(shown["model"], folder, settings=shown["settings"], audit=shown)
    write_text(folder / "audit.md", _markdown(audit, name))
    write_text(folder / "audit.html", page_of(f"Audit of {name}", [source], {}))
    write_json(folder / "audit.json", content)


def print_audit(console: Terminal, audit: Audit) -> None:
    """Print the findings and the verdict."""
    lines = [[str(f.number), f.name, _state(f.state), f.measured] for f in audit.findings]
    Table(["", "check", "state", "measured"], lines, left=4).print(console)
    for finding in audit.findings:
        if finding.state in (ALARM, NOTE):
            console.print(f"{finding.number}. {finding.state}: {finding.verdict}")
    console.print(STATES)
    figures = f"clean {audit.clean}, attacked {audit.attacked} %"
    console.print(f"{figures}. {audit.verdict}")


def _state(state: str) -> str:
    return "ALARM" if state == ALARM else state


def _markdown(audit: Audit, name: str) -> str:
    lines = [
        [str(f.number), f.name, _state(f.state), f.measured, f.threshold, f.verdict]
        for f in audit.findings
    ]
    heads = ["", "check", "state", "measured", "fires when", "verdict"]
    about = audit.about
    how = escape_markdown(f"{about['direct']}, {ball_text(about['ball'])}")
    return "\n".join(
        [
            f"# Audit of {escape_markdown(name)}",
            "",
            f"**{escape_markdown(audit.verdict)}**",
            "",
            f"Accuracy of the vote, %: clean {audit.clean}, attacked {audit.attacked} "
            f"({how}), on {about['images']} images.",
            "",
            Table(heads, lines, left=6).markdown(),
            f"{STATES}.",
        ]
    )
