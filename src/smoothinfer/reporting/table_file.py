"""The table of rows of a result folder, checked: later code takes its columns for granted."""

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothinfer.errors import InputError
from smoothinfer.evaluation.results import Results
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.store import decode
from smoothinfer.reporting.members import read_json_member, read_member
from smoothinfer.reporting.shapes import SUMMARY
from smoothinfer.runtime.printable import one_line, printable

_SETTINGS = ("command", "asked", "computers", "made_by", "data")
_LARGEST = 4 * 2**30  # bytes
_MOST_ROWS, _MOST_COLUMNS = 10**8, 500
_MOST_SAMPLES = 10**9
_INTEGERS = ("image", "label", "predicted", "samples", "hits")
_NUMBERS = ("share", "forwards", "backwards")
_WORDS = ("attack", "rule")
_NOT_NEGATIVE = ("image", "label", "forwards", "backwards")
_REQUIRED = (*_INTEGERS, *_NUMBERS, *_WORDS, "correct")
# Settings that figures and tables take for numbers, where they are there.
_SETTING_NUMBERS = ("sigma", "radius", "seed", "attack_sigma")
# Names that a summary gives to columns of its own.
_TAKEN = {"clean", "attacked", "seeds", "source", "always", "gain"}
_AGGREGATES = ("_sum", "_count", "_mean", "_stddev")


def read_table(folder: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows of a result folder, and their settings.

    Args:
        folder: holds ``table.parquet`` and the ``summary.json`` that describes it. A
            ``settings.json`` may belong to a later run.

    Raises:
        InputError: the files do not belong together, are damaged, or hold no results.
    """
    path = folder / "table.parquet"
    content = read_member(path, folder, _LARGEST)
    summary = read_json_member("summary.json", folder, SUMMARY)
    if summary["table"] != hashlib.sha256(content).hexdigest():
        raise InputError(f"{path} is not the table that {folder / 'summary.json'} describes")
    settings = {name: summary[name] for name in _SETTINGS if name in summary}
    return _printable(decode_table(content, path)), settings


def decode_table(content: bytes, path: Path) -> Rows:
    """Return the rows in the content of ``path``, a Parquet file, if they are of an evaluation.

    Raises:
        InputError: it is no Parquet file, or see `check_rows`.
    """
    try:
        about = pq.read_metadata(pa.BufferReader(content))
        if about.num_columns > _MOST_COLUMNS or about.num_rows > _MOST_ROWS:
            raise InputError(f"{path} is too large: {about.num_rows:,} rows")
        rows = decode(content)
        rows.validate(full=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = one_line(str(error))
        raise InputError(f"{path} is not a readable Parquet file: {why}") from None
    return check_rows(rows, path)


def check_rows(rows: Rows, path: Path) -> Rows:
    """Return ``rows`` if they are those of an evaluation.

    Args:
        rows: read from ``path``.
        path: for errors.

    Raises:
        InputError: a column is missing, has a wrong type, or holds values that cannot be.
    """
    _check_names(rows, path)
    rows = _plain_text(rows)
    for name in rows.column_names:
        _check_type(name, rows[name], path)
    _require(len(rows) > 0, f"{path} has no rows")
    used = rows["used"] if "used" in rows.column_names else rows["samples"]
    _check_values("samples", rows["samples"], 1, _MOST_SAMPLES, path)
    _check_values("used", used, 1, rows["samples"], path)
    _check_values("hits", rows["hits"], 0, used, path)
    for name, high in (*((name, None) for name in _NOT_NEGATIVE), ("share", 1)):
        _check_values(name, rows[name], 0, high, path)
    return rows


def _plain_text(rows: Rows) -> Rows:
    """Return ``rows`` with all text of one type: pandas writes it as another."""
    large = [at for at, field in enumerate(rows.schema) if pa.types.is_large_string(field.type)]
    for at in large:
        rows = rows.set_column(at, rows.schema[at].name, rows[at].cast(pa.string()))
    return rows


def _check_values(name: str, column: pa.ChunkedArray, low: int, high: Any, path: Path) -> None:
    fits = pc.greater_equal(column, low)
    fits = fits if high is None else pc.and_(fits, pc.less_equal(column, high))
    _require(pc.all(fits).as_py(), f"{path}: column {name!r} holds values that cannot be")


def _check_names(rows: Rows, path: Path) -> None:
    names = [printable(name) for name in rows.column_names]
    missing = [name for name in _REQUIRED if name not in names]
    _require(not missing, f"{path} lacks the columns {', '.join(missing)}")
    for name in names:
        taken = name in _TAKEN or name.endswith(_AGGREGATES) or names.count(name) > 1
        _require(not taken, f"{path}: a column cannot be called {name!r}, or it is there twice")


def _check_type(name: str, column: pa.ChunkedArray, path: Path) -> None:
    kind, types = column.type, pa.types
    number = types.is_integer(kind) or types.is_float64(kind) or types.is_float32(kind)
    fits = number or types.is_string(kind) or types.is_boolean(kind) or types.is_null(kind)
    if name in (*_INTEGERS, "used"):
        fits = types.is_signed_integer(kind)
    elif name in (*_NUMBERS, *_SETTING_NUMBERS):
        fits = number or (name in _SETTING_NUMBERS and types.is_null(kind))
    elif name in _WORDS:
        fits = types.is_string(kind)
    elif name == "correct":
        fits = types.is_boolean(kind)
    shown = printable(name)
    _require(fits, f"{path}: column {shown!r} cannot be of type {printable(str(kind))}")
    whole = name not in (*_REQUIRED, "used") or column.null_count == 0
    _require(whole, f"{path}: column {shown!r} lacks values")
    if types.is_floating(kind):
        _require(
            pc.all(pc.is_finite(column)).as_py() is not False,
            f"{path}: column {shown!r} holds numbers that are not finite",
        )


def _require(true: bool, message: str) -> None:
    if not true:
        raise InputError(f"{message}: rerun the command that wrote it")


def _printable(rows: Rows) -> Rows:
    """Return ``rows`` with all names and words printable."""
    for at, name in enumerate(rows.column_names):
        column = rows[name]
        words = column.unique().to_pylist() if pa.types.is_string(column.type) else []
        if any(word is not None and word != printable(word) for word in words):
            shown = [None if word is None else printable(word) for word in column.to_pylist()]
            rows = rows.set_column(at, name, pa.array(shown, pa.string()))
    return rows.rename_columns([printable(name) for name in rows.column_names])


def load_results(folder: str | Path) -> Results:
    """Return the rows that a command wrote into ``folder``, as `evaluate` returns them.

    Raises:
        InputError: the folder holds no results, or they are damaged.
    """
    path = Path(folder)
    if (path / "certified.json").exists():
        raise InputError(
            f"{path} holds certificates: their figures are in certified.json, their rows are "
            f"pyarrow.parquet.read_table({str(path / 'rows')!r})"
        )
    if not (path / "table.parquet").exists():
        raise InputError(f"{path} holds no table.parquet: name a folder of evaluate or sweep")
    return Results(read_table(path)[0])
