"""What `evaluate` returns: the rows of an Arrow table, which show themselves as a short table."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from smoothinfer.errors import unknown
from smoothinfer.evaluation.rows import Rows, as_table, rows_of, setting_columns, summarise
from smoothinfer.evaluation.subject import cell_text, subject_text
from smoothinfer.numerics.statistics import Interval
from smoothinfer.runtime.printable import printable

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """Rows of one image and setting each: all that a ``pyarrow.Table`` can do, and a summary.

    Args:
        table: the rows.

    >>> columns = {"image": [0, 1], "correct": [True, False], "attack": ["none", "none"]}
    >>> columns |= {"samples": [8, 8], "hits": [8, 2], "forwards": [0, 0], "backwards": [0, 0]}
    >>> rows = Results(pa.table(columns))
    >>> len(rows), rows["correct"].to_pylist(), float(rows.accuracy().accuracy[0])
    (2, [True, False], 0.5)
    """

    def __init__(self, table: Rows) -> None:
        self.table = table

    def accuracy(self) -> pd.DataFrame:
        """Return one line for each setting: accuracy of the vote, its interval, of a single pass.

        Columns are those that differ between the settings, then ``accuracy``, ``low`` and ``high``
        (95 % over images), ``one_pass`` and ``images``. All figures are shares.
        """
        import pandas as pd

        lines = []
        for name, entries in self._by_attack().items():
            for description, figure in entries:
                values = {key: figure[key] for key in ("value", "low", "high")}
                named = {"accuracy": values.pop("value"), **values, "one_pass": figure["per_draw"]}
                lines.append({**description, "attack": name, **named, "images": figure["images"]})
        found = pd.DataFrame(lines, columns=None if lines else ["attack", *_FIGURES])
        settings = [name for name in found.columns if name not in _FIGURES and name != "attack"]
        same = [name for name in settings if found[name].astype(str).nunique() <= 1]
        return found.drop(columns=same)

    def _by_attack(self) -> dict[str, list[tuple[dict[str, Any], dict[str, Any]]]]:
        """Return (setting, figures) for the clean images and each attack."""
        found: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
        seen: set[str] = set()
        for entry in summarise(self.table):
            setting = dict(entry["description"])
            attack = setting.pop("attack")
            clean = {key: value for key, value in setting.items() if key not in ("radius", "norm")}
            if entry["clean"] is not None and str(clean) not in seen:
                seen.add(str(clean))
                found.setdefault("none", []).append((clean, entry["clean"]))
            if entry["attacked"] is not None:
                found.setdefault(attack, []).append((setting, entry["attacked"]))
        return found

    def to_pandas(self) -> pd.DataFrame:
        """Return all rows as a data frame."""
        return self.table.to_pandas()

    def filter(self, mask: Any = None, **setting: Any) -> Results:
        """Return the rows that have the values of ``setting``, and that ``mask`` keeps.

        Args:
            mask: an Arrow mask or expression, or one boolean for each row.
            setting: values of columns, such as ``attack="pgd(steps=7)", samples=64``.

        Raises:
            InputError: there is no such column.

        >>> Results(pa.table({"sigma": [0.0, 0.1], "image": [0, 0]})).filter(sigma=0.1).num_rows
        1
        """
        table = self.table if mask is None else self.table.filter(mask)
        for name in setting:
            if name not in table.column_names:
                raise unknown("column", name, table.column_names)
        return Results(rows_of(table, setting))

    def equals(self, other: Results | Rows) -> bool:
        """Return whether all rows are the same."""
        return bool(self.table.equals(as_table(other)))

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, column: str) -> pa.ChunkedArray:
        return self.table[column]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.table.to_pylist())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "table":
            raise AttributeError(name)
        return getattr(self.table, name)

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.table.__arrow_c_stream__(requested_schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and self.equals(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        names = [name for name in setting_columns(self.table) if self._count(name) > 1]
        about = ", ".join(f"{self._count(name)} of {name}" for name in names)
        shown = self._shown().to_string(index=False)  # all columns, however narrow the terminal
        return (
            f"Results({len(self):,} rows{': ' if about else ''}{about})\n{self._about()}\n{shown}"
        )

    def _repr_html_(self) -> str:
        shown = self._shown().to_html(escape=True, index=False)
        return f"<p>{len(self):,} rows: {html.escape(self._about())}</p>{shown}"

    def _about(self) -> str:
        return printable(subject_text(summarise(self.table))) if len(self) else ""

    def _shown(self) -> pd.DataFrame:
        """Return the summary in per cent, as text."""
        found = self.accuracy()
        shown = found.drop(columns=[name for name in _FIGURES if name in found])
        shown["accuracy, %"] = [
            str(Interval(row.accuracy, row.low, row.high, row.images)) for row in found.itertuples()
        ]
        shown["one pass, %"] = [f"{100 * value:z.1f}" for value in found["one_pass"]]
        for name in ("radius", "sigma"):
            if name in shown:
                shown[name] = [cell_text(None if v != v else v) for v in shown[name]]
        return shown.assign(images=found["images"])

    def _count(self, name: str) -> int:
        return len(self.table[name].unique())


_FIGURES = ("accuracy", "low", "high", "one_pass", "images")
