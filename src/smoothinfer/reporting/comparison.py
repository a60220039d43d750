"""The paper's figures beside the measured ones, as data: for Markdown and for the page."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from smoothinfer.errors import InputError
from smoothinfer.reporting.escaping import escape_markdown, paragraph
from smoothinfer.reporting.members import read_json_member
from smoothinfer.reporting.shapes import COMPARISON
from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.files import write_json, write_text

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
        """The table, without columns that say nothing, such as figures of the paper unknown."""
        kept = [
            at for at in range(len(self.heads)) if at == 0 or any(line[at] for line in self.lines)
        ]
        return Table(
            [self.heads[at] for at in kept],
            [[line[at] for at in kept] for line in self.lines],
            left=1,
        )

    def markdown(self, figures: str = "figures") -> str:
        """Return it in Markdown, without a heading; ``figures`` is the folder of the pictures."""
        shown = [f"![{escape_markdown(name)}]({figures}/{quote(name)})" for name in self.figures]
        notes = map(paragraph, self.notes)
        parts = (paragraph(self.description), self.table.markdown().rstrip(), *shown, *notes)
        return "\n\n".join(part for part in parts if part)


def write_comparison(comparison: Comparison, out: Path, name: str) -> None:
    """Write it as ``NAME.md`` and, for the report, as data."""
    write_text(
        out / f"{name}.md", f"# {escape_markdown(comparison.title)}\n\n{comparison.markdown()}\n"
    )
    write_json(out / _FILE, asdict(comparison))


def read_comparison(folder: Path) -> Comparison | None:
    """Return the comparison in ``folder``, if any.

    Raises:
        InputError: it is damaged, or no file of the folder.
    """
    if not (folder / _FILE).exists():
        return None
    content = read_json_member(_FILE, folder, COMPARISON)
    found = Comparison(
        **{name: content[name] for name in COMPARISON if content.get(name) is not None}
    )
    if any(len(line) != len(found.heads) for line in found.lines):
        raise InputError(f"{folder / _FILE}: lines and heads differ in length: rerun the command")
    return found
