"""Lists of what there is: a table on the terminal, or in Markdown for a document."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace

from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.printable import printable
from smoothinfer.runtime.terminal import Terminal

FORMATS = ("text", "markdown")
_LEAST = 4  # letters of a cell that is cut


def add_format(parser: ArgumentParser) -> None:
    """Add ``--format text|markdown``."""
    parser.add_argument("--format", choices=FORMATS, default="text", help="of the list")


def show(table: Table, options: Namespace, whole: bool = False, heads: bool = False) -> None:
    """Print ``table`` as the options say: a line for each entry, or as a ``whole``.

    Args:
        table: of the entries.
        options: of the command.
        whole: print it as a table.
        heads: print the heads above the lines.
    """
    if options.format == "markdown":
        Terminal().print_lines(table.markdown())
    elif whole:
        table.print(Terminal())
    else:
        terminal = Terminal()
        shown = replace(table, lines=[table.heads, *table.lines]) if heads else table
        for line in plain_lines(shown, terminal.width):
            terminal.print(line)


def first_sentence(text: str | None) -> str:
    """Return the first sentence of a text, on one line.

    >>> first_sentence("Paint it (twice, e.g. red).\\n\\nMore.")
    'Paint it (twice, e.g. red).'
    """
    words = " ".join((text or "").strip().split("\n\n")[0].split())
    for end in range(len(words)):
        if words[end] in ".:" and (end + 1 == len(words) or words[end + 1] == " "):
            if words[:end].endswith(("e.g", "i.e", "et al", "vs")):
                continue
            return words[:end] + "."
    return words


def plain_lines(table: Table, width: int) -> list[str]:
    """Return one line for each entry; the last cell is cut where the line is too long, or left out.

    >>> plain_lines(Table(["a", "b"], [["one", "a long text"], ["three", "x"]]), 14)
    ['one    a long…', 'three  x']
    >>> plain_lines(Table(["a", "b"], [["one", "a long text"], ["three", "x"]]), 8)
    ['one', 'three']
    """
    sizes = [max(len(line[at]) for line in table.lines) for at in range(len(table.heads) - 1)]
    room = width - sum(sizes) - 2 * len(sizes)
    found = []
    for line in table.lines:
        cells = [f"{cell:<{size}}" for cell, size in zip(line, sizes, strict=False)]
        before, last = "  ".join(map(printable, cells)), printable(line[-1])
        if room < _LEAST:
            found.append(before.rstrip())
        elif len(text := f"{before}  {last}") > width:
            found.append(text[: width - 1] + "…")
        else:
            found.append(text)
    return found
