"""The one table: lines of cells, printed on the terminal or written as Markdown, LaTeX or HTML."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from markupsafe import Markup

from smoothinfer.evaluation.subject import NORMS
from smoothinfer.evaluation.subject import cell_text as cell_text
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.escaping import escape_latex, escape_markdown
from smoothinfer.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

Attributes: TypeAlias = Mapping[tuple[int, int], Mapping[str, object]]
LATEX_PACKAGES = "% needs \\usepackage{booktabs,graphicx,longtable}"
_LATEX_COLUMNS = 6  # of figures with intervals, that an article holds side by side
RULE_ORDER = ("prediction", "weighted", "top_two", "soft", "logits")
_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?)")
_PAGE_LINES = 45
_GAP, _EDGES, _WORDS = 2, 2, 18  # between columns; beside all; of words, which may be broken
_TABLE = Markup(
    '<div class="scroll"><table{attributes}>{caption}\n<thead><tr>{heads}</tr></thead>'
    "<tbody>\n{lines}\n</tbody></table></div>"
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        heads: of the columns.
        lines: the cells, line by line; a table without lines is left out wherever it is written.
        title: above the table.
        left: number of columns, from the first, that are aligned to the left.
    """

    heads: Sequence[str]
    lines: Sequence[Sequence[str]]
    title: str = ""
    left: int = 0

    def print(self, console: Console, gaps: bool = False) -> None:
        """Print the table; with ``gaps`` a line is left free where the first cells change.

        No number is broken: columns that do not fit stand in a table of their own below, and one
        that fits nowhere makes lines longer than the terminal's. A title that is wider than its
        table has lines of its own.
        """
        if not self.lines:
            return
        for at, part in enumerate(self.parts(console.width)):
            shown = part if at == 0 else replace(part, title="")
            shown._print_whole(console, gaps)

    def parts(self, width: int) -> list[Table]:
        """Return the table, or parts with as many columns of numbers as ``width`` holds.

        >>> [part.heads for part in Table(["a", "b", "c"], [["x", "1", "22"]], left=1).parts(9)]
        [['a', 'b'], ['a', 'c']]
        """
        sizes = [self._width(at) for at in range(len(self.heads))]
        keys = max(1, self.left)  # repeated in every part
        room = width - _EDGES + _GAP - sum(min(size, _WORDS) + _GAP for size in sizes[:keys])
        groups: list[list[int]] = [[]]
        for at in range(keys, len(sizes)):
            taken = sum(sizes[each] + _GAP for each in groups[-1])
            if groups[-1] and taken + sizes[at] + _GAP > room:
                groups.append([])
            groups[-1].append(at)
        if len(groups) == 1:
            return [self]
        found = []
        for group in groups:
            kept = [*range(keys), *group]
            lines = [[line[at] for at in kept] for line in self.lines]
            found.append(replace(self, heads=[self.heads[at] for at in kept], lines=lines))
        return found

    def _width(self, at: int) -> int:
        return max(len(printable(row[at])) for row in (self.heads, *self.lines))

    def _print_whole(self, console: Console, gaps: bool) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        widths = self._widths(console.width)
        total = sum(widths) + _GAP * (len(widths) - 1) + _EDGES
        title = Text(printable(self.title), style="table.title") if self.title else None
        above = title is not None and len(title) > total
        table = RichTable(
            title=None if above else title,
            box=SIMPLE_HEAD,
            padding=(0, _GAP - 1, 0, 0),  # the box has the other blank
            pad_edge=False,
            width=total,  # wider than the terminal where a number would be cut
        )
        for at, (head, width) in enumerate(zip(self.heads, widths, strict=True)):
            table.add_column(
                Text(printable(head)),
                justify="left" if at < self.left else "right",
                overflow="fold",
                width=width,
            )
        for before, line in zip([None, *self.lines], self.lines, strict=False):
            if gaps and before is not None and before[0] != line[0]:
                table.add_section()
            table.add_row(*(Text(printable(cell)) for cell in line))
        if above:
            console.print()
            console.print(title, soft_wrap=False)
        console.print(table, soft_wrap=False, crop=False)

    def _widths(self, width: int) -> list[int]:
        """Return the width of each column; words give way, the longest first, numbers do not."""
        widths = [self._width(at) for at in range(len(self.heads))]
        keys = range(max(1, self.left))
        while sum(widths) + _GAP * (len(widths) - 1) + _EDGES > width:
            longest = max(keys, key=lambda at: widths[at])
            if widths[longest] <= _WORDS:
                break
            widths[longest] -= 1
        return widths

    def markdown(self) -> str:
        """Return the table in Markdown, its title above it.

        >>> print(Table(["n"], [["8"]]).markdown().rstrip())
        | n |
        | ---: |
        | 8 |
        """
        if not self.lines:
            return ""
        rule = [":---" if at < self.left else "---:" for at in range(len(self.heads))]
        heads, *lines = [[*map(escape_markdown, row)] for row in (self.heads, *self.lines)]
        text = "".join(f"| {' | '.join(row)} |\n" for row in (heads, rule, *lines))
        title = escape_markdown(self.title)
        return f"{title}:\n\n{text}" if title else text

    def latex(self, caption: str, label: str) -> str:
        """Return a ``table`` with booktabs, made smaller where it is wider than a page.

        One with more lines than a page can hold is a ``longtable``, in its own size.
        """
        called = rf"\caption{{{escape_latex(caption)}}}\label{{{label}}}"
        columns = "".join("l" if at < self.left else "r" for at in range(len(self.heads)))
        head = " & ".join(map(escape_latex, self.heads)) + r" \\"
        top = [r"\toprule", head, r"\midrule"]
        if len(self.lines) > _PAGE_LINES:
            begin = [rf"\begin{{longtable}}{{{columns}}}", rf"{called} \\", *top, r"\endhead"]
            end = [r"\end{longtable}"]
        else:
            wide = len(self.heads) > _LATEX_COLUMNS
            small, closed = ([r"\resizebox{\linewidth}{!}{%"], ["}"]) if wide else ([], [])
            tabular = rf"\begin{{tabular}}{{{columns}}}"
            begin = [r"\begin{table}", called, *small, tabular, *top]
            end = [r"\end{tabular}", *closed, r"\end{table}"]
        lines = [" & ".join(map(_latex_cell, line)) + r" \\" for line in self.lines]
        return "\n".join([*begin, *lines, r"\bottomrule", *end, ""])

    def html(
        self,
        caption: str = "",
        kind: str = "",
        attributes: Attributes | None = None,
        row_heads: bool = False,
    ) -> Markup:
        """Return an HTML table of class ``kind``, ``attributes`` of cells by (line, column)."""
        column = Markup('<th scope="col"{}>{}</th>')
        heads = [column.format(_attributes(self._side(at)), h) for at, h in enumerate(self.heads)]
        lines = [
            self._html_line(line, number, attributes or {}, row_heads)
            for number, line in enumerate(self.lines)
        ]
        return _TABLE.format(
            attributes=_attributes({"class": kind} if kind else {}),
            caption=Markup("<caption>{}</caption>").format(caption) if caption else "",
            heads=Markup("").join(heads),
            lines=Markup("\n").join(lines),
        )

    def _html_line(
        self, line: Sequence[str], number: int, attributes: Attributes, row_heads: bool
    ) -> Markup:
        cells = []
        for at, cell in enumerate(line):
            own = {**self._side(at), **attributes.get((number, at), {})}
            cells.append(Markup("<td{}>{}</td>").format(_attributes(own), cell))
        if row_heads:
            cells[0] = Markup('<th scope="row">{}</th>').format(line[0])
        return Markup("<tr>{}</tr>").format(Markup("").join(cells))

    def _side(self, at: int) -> dict[str, str]:
        return {"class": "number"} if at >= self.left else {}


def _attributes(pairs: Mapping[str, object]) -> Markup:
    """Write attributes of an element; their names are never a stranger's."""
    return Markup("").join(Markup(' {}="{}"').format(*pair) for pair in pairs.items())


def _latex_cell(cell: str) -> str:
    """Escape a cell: a hyphen between numbers is a range, one before a number is a minus."""
    ranged = re.sub(r"(?<=\d)-(?=\d)", "--", escape_latex(cell))
    signed = re.sub(r"(?<![\w.-])-(?=\d)", "$-$", ranged)
    return signed.replace("±", r"$\pm$")


def radius_text(radius: float, norm: str | None = None) -> str:
    """Write the radius of a ball, with its norm where that is not L-infinity.

    >>> radius_text(8 / 255), radius_text(0.5, "l2")
    ('8/255', '0.5 (l2)')
    """
    return cell_text(float(radius)) + (f" ({norm})" if norm else "")


def norm_name(norm: str) -> str:
    """Write a norm as the field does; one that is unknown is said to be.

    >>> norm_name("linf"), norm_name("L2"), norm_name("l7")
    ('L-infinity', 'L2', 'unknown norm,')
    """
    return NORMS.get(norm.lower(), "unknown norm,")


def ball_text(ball: str) -> str:
    """Write a ball as saved files name it: its norm, its radius in grey levels where shorter.

    >>> ball_text("Linf(radius=0.03137254901960784)")
    'L-infinity radius 8/255'
    """
    found = re.fullmatch(r"(\w+)\(radius=(\d+(?:\.\d+)?)\)", ball)
    if found is None or found[1].lower() not in NORMS:
        return ball
    return f"{norm_name(found[1])} radius {cell_text(float(found[2]))}"


def sort_key(value: Any) -> tuple[int, float, list[str | float]]:
    """Return a key that sorts missing values first, then numbers, the paper's rules, other words.

    Numbers within words count as such.

    >>> sorted(["soft", 8, "apgd", "prediction", None, 2.5], key=sort_key)
    [None, 2.5, 8, 'prediction', 'soft', 'apgd']
    >>> sorted(["pgd(draws=16)", "pgd(draws=4)", "pgd(draws=1)"], key=sort_key)
    ['pgd(draws=1)', 'pgd(draws=4)', 'pgd(draws=16)']
    """
    if value is None:
        return 0, 0.0, []
    if isinstance(value, int | float):
        return 1, float(value), []
    parts: list[str | float] = list(_NUMBER.split(str(value)))
    parts[1::2] = map(float, parts[1::2])  # words stand at the even places, also if empty
    return 2, RULE_ORDER.index(value) if value in RULE_ORDER else len(RULE_ORDER), parts


def interval_text(figure: Mapping[str, Any] | None) -> str:
    """Write an accuracy of a summary, a share in [0, 1], in per cent with its interval.

    >>> interval_text({"value": 0.671, "low": None, "high": None, "images": 100})  # unknown
    '67.1'
    """
    if figure is None:
        return ""
    if figure["low"] is None:
        return f"{100 * figure['value']:.1f}"
    return str(Interval(*(figure[name] for name in ("value", "low", "high", "images"))))
