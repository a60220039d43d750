"""The one table: lines of cells, printed on the terminal or written as Markdown, LaTeX or HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smoothinfer.config.components import grey_levels
from smoothinfer.numerics.statistics import Interval

if TYPE_CHECKING:
    from rich.console import Console

RULE_ORDER = ("prediction", "weighted", "top_two", "soft", "logits")
_SPECIAL = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}}
_SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_PAGE_LINES = 45


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
        """Print the table; with ``gaps`` a line is left free where the first cells change."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable
        from rich.text import Text

        if not self.lines:
            return
        table = RichTable(title=self.title or None, box=SIMPLE_HEAD, pad_edge=False)
        for at, head in enumerate(self.heads):
            table.add_column(
                Text(head), justify="left" if at < self.left else "right", overflow="fold"
            )
        for before, line in zip([None, *self.lines], self.lines, strict=False):
            if gaps and before is not None and before[0] != line[0]:
                table.add_section()
            table.add_row(*map(Text, line))
        console.print(table)

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
        rows = [self.heads, rule, *self.lines]
        text = "".join(f"| {' | '.join(c.replace('|', '/') for c in row)} |\n" for row in rows)
        return f"{self.title[0].upper()}{self.title[1:]}:\n\n{text}" if self.title else text

    def latex(self, caption: str, label: str) -> str:
        """Return a ``table`` with booktabs; one that no page can hold is a ``longtable``."""
        called = rf"\caption{{{escape_latex(caption)}}}\label{{{label}}}"
        columns = "".join("l" if at < self.left else "r" for at in range(len(self.heads)))
        head = " & ".join(map(escape_latex, self.heads)) + r" \\"
        top = [r"\toprule", head, r"\midrule"]
        if len(self.lines) > _PAGE_LINES:
            begin = [rf"\begin{{longtable}}{{{columns}}}", rf"{called} \\", *top, r"\endhead"]
            end = [r"\end{longtable}"]
        else:
            begin = [r"\begin{table}", called, rf"\begin{{tabular}}{{{columns}}}", *top]
            end = [r"\end{tabular}", r"\end{table}"]
        lines = [" & ".join(map(_latex_cell, line)) + r" \\" for line in self.lines]
        return "\n".join([*begin, *lines, r"\bottomrule", *end, ""])

    def html(
        self,
        caption: str = "",
        kind: str = "",
        attributes: Mapping[tuple[int, int], str] | None = None,
        row_heads: bool = False,
    ) -> str:
        """Return an HTML table of class ``kind``, ``attributes`` of cells by (line, column)."""
        heads = "".join(
            f'<th scope="col"{self._side(at)}>{html.escape(head)}</th>'
            for at, head in enumerate(self.heads)
        )
        lines = []
        for number, line in enumerate(self.lines):
            cells = [
                f"<td{self._side(at)}{(attributes or {}).get((number, at), '')}>"
                f"{html.escape(cell)}</td>"
                for at, cell in enumerate(line)
            ]
            if row_heads:
                cells[0] = f'<th scope="row">{html.escape(line[0])}</th>'
            lines.append(f"<tr>{''.join(cells)}</tr>")
        body = "\n".join(lines)
        named = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        chosen = f' class="{kind}"' if kind else ""
        return (
            f'<div class="scroll"><table{chosen}>{named}\n<thead><tr>{heads}</tr></thead>'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )

    def _side(self, at: int) -> str:
        return ' class="number"' if at >= self.left else ""


def escape_latex(text: str) -> str:
    r"""Return ``text`` with LaTeX's special characters escaped.

    >>> print(escape_latex("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _latex_cell(cell: str) -> str:
    ranged = re.sub(r"(?<=\d)-(?=\d)", "--", escape_latex(cell))
    return ranged.replace("±", r"$\pm$")


def cell_text(value: Any) -> str:
    """Write a value of a column.

    >>> cell_text(0.060000001), cell_text(8 / 255), cell_text(None)
    ('0.06', '8/255', '')
    """
    if value is None or not isinstance(value, float):
        return "" if value is None else str(value)
    return grey_levels(value) or f"{value:.6g}"


def sort_key(value: Any) -> tuple[int, float, str]:
    """Return a key that sorts missing values first, then numbers, the paper's rules, other words.

    >>> sorted(["soft", 8, "apgd", "prediction", None, 2.5], key=sort_key)
    [None, 2.5, 8, 'prediction', 'soft', 'apgd']
    """
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, RULE_ORDER.index(value) if value in RULE_ORDER else len(RULE_ORDER), str(value)


def interval_text(figure: Mapping[str, Any] | None) -> str:
    """Write an accuracy of a summary, a share in [0, 1], in per cent with its interval."""
    if figure is None:
        return ""
    return str(Interval(*(figure[name] for name in ("value", "low", "high", "images"))))
