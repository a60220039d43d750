"""What the paper says beside what was measured, as data: for Markdown, and for the page."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from smoothinfer.runtime.files import read_json, write_json, write_whole
from smoothinfer.reporting.tables import markdown_of

_FILE = "experiment.json"


@dataclass(frozen=True)
class Comparison:
    """A table or figure of the paper, repeated.

    Attributes:
        title, about: what is shown.
        heads, lines: a table, cells as text; none if only figures are compared.
        notes: how to read it, and what is missing.
        figures: names of PNG files in the folder ``figures`` beside it.
        command: the command line that made it, if any did.
    """

    title: str
    about: str = ""
    heads: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    command: str = ""

    def markdown(self, figures: str = "figures") -> str:
        """Return it in Markdown, below no heading; ``figures`` is where the pictures are."""
        rule = [":---", *["---:"] * (len(self.heads) - 1)]
        table = [markdown_of([self.heads, rule, *self.lines]).rstrip()] if self.lines else []
        shown = [f"![{name}]({figures}/{name.replace(' ', '%20')})" for name in self.figures]
        return "\n\n".join(part for part in (self.about, *table, *shown, *self.notes) if part)


def write_comparison(found: Comparison, out: Path, name: str) -> None:
    """Write it as ``NAME.md`` and, for the report, as data."""
    text = f"# {found.title}\n\n{found.markdown()}\n"
    write_whole(out / f"{name}.md", lambda file: file.write(text.encode()))
    write_json(out / _FILE, asdict(found))


def read_comparison(folder: Path) -> Comparison | None:
    """Return the comparison that ``folder`` holds, if any."""
    path = folder / _FILE
    return Comparison(**read_json(path)) if path.exists() else None
