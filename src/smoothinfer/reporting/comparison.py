"""The paper's figures beside the measured ones, as data: for Markdown and for the page."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.files import read_json, write_json, write_text

_FILE = "experiment.json"


@dataclass(frozen=True)
class Comparison:
    """A table or figure of the paper, repeated.

    Attributes:
        title, description: of the experiment.
        heads, lines: a table, cells as text; none if only figures are compared.
        notes: how to read it, and missing parts.
        figures: names of PNG files in the folder ``figures`` beside it.
        command: the command line that made it, if any.
    """

    title: str
    description: str = ""
    heads: list[str] = field(default_factory=list)
    lines: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    command: str = ""

    @property
    def table(self) -> Table:
        return Table(self.heads, self.lines, left=1)

    def markdown(self, figures: str = "figures") -> str:
        """Return it in Markdown, without a heading; ``figures`` is the folder of the pictures."""
        shown = [f"![{name}]({figures}/{name.replace(' ', '%20')})" for name in self.figures]
        parts = (self.description, self.table.markdown().rstrip(), *shown, *self.notes)
        return "\n\n".join(part for part in parts if part)


def write_comparison(comparison: Comparison, out: Path, name: str) -> None:
    """Write it as ``NAME.md`` and, for the report, as data."""
    write_text(out / f"{name}.md", f"# {comparison.title}\n\n{comparison.markdown()}\n")
    write_json(out / _FILE, asdict(comparison))


def read_comparison(folder: Path) -> Comparison | None:
    """Return the comparison in ``folder``, if any."""
    path = folder / _FILE
    return Comparison(**read_json(path)) if path.exists() else None
