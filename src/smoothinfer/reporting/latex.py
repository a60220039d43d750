"""Tables for a paper: LaTeX with booktabs, numbers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smoothinfer.reporting.collect import Record, common, varying
from smoothinfer.reporting.tables import told

_SPECIAL = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}}
_SPECIAL |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


_PAGE = 45  # lines


def latex_table(found: Sequence[Record], caption: str, label: str) -> str:
    """Return a ``table`` of the records: what tells them apart, then clean and attacked accuracy.

    One that no page can hold is a ``longtable``.

    Args:
        found: see `records`.
        caption, label: of the table.
    """
    names = varying(list(found))
    heads = [*names, "clean", "attacked"]
    said = escaped(f"{caption}; {common(list(found), names)}")
    called = rf"\caption{{{said}}}\label{{{label}}}"
    columns = f"{{{'l' * len(names)}rr}}"
    top = [r"\toprule", " & ".join(escaped(head) for head in heads) + r" \\", r"\midrule"]
    if len(found) > _PAGE:
        lines = [rf"\begin{{longtable}}{columns}", rf"{called} \\", *top, r"\endhead"]
        ends = [r"\end{longtable}"]
    else:
        lines = [r"\begin{table}", called, rf"\begin{{tabular}}{columns}", *top]
        ends = [r"\end{tabular}", r"\end{table}"]
    for record in found:
        cells = [escaped(told(record[name])) for name in names]
        cells += [_share(record[measure]) for measure in ("clean", "attacked")]
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*lines, r"\bottomrule", *ends, ""])


def escaped(text: str) -> str:
    r"""Return ``text`` with what LaTeX reads as commands escaped.

    >>> print(escaped("50 % of a_b"))
    50 \% of a\_b
    """
    return "".join(_SPECIAL.get(letter, letter) for letter in text)


def _share(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return ""
    spread = rf" \pm {measured['std']:.1f}" if measured["std"] is not None else ""
    ends = f"({measured['low']:.1f}--{measured['high']:.1f})"
    return f"${measured['value']:.1f}{spread}$ {ends}"
