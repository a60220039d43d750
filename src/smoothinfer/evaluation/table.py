"""The one table: one row per image and setting, in Parquet shards that are written once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from smoothinfer.errors import InputError
from smoothinfer.files import write_whole
from smoothinfer.numerics.statistics import Interval, proportion

Rows: TypeAlias = pa.Table

CLEAN = "none"
# What a row says of its image; every other column describes its setting.
IMAGE_COLUMNS = ("image", "label", "predicted", "correct", "share", "distance")


class Store:
    """A folder of immutable shards, one for each unit of work.

    Args:
        folder: made when the first shard is written; ``None`` keeps the rows in memory.

    Raises:
        InputError: a shard cannot be read; the message names the file.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._kept: dict[str, Rows] = {}

    @property
    def kept(self) -> bool:
        """Whether rows go to a folder."""
        return self.folder is not None

    def has(self, unit: str) -> bool:
        """Say whether the work ``unit`` is done."""
        return unit in self._kept or (self.folder is not None and self._path(unit).exists())

    def write(self, unit: str, rows: Rows) -> None:
        """Keep the rows of ``unit``, whole or not at all."""
        if self.folder is None:
            self._kept[unit] = rows
        else:
            write_whole(self._path(unit), lambda file: pq.write_table(rows, file))

    def read(self, units: Sequence[str] | None = None) -> Rows:
        """Return the rows of ``units`` (of all shards by default), in the order of the units."""
        if self.folder is None:
            return pa.concat_tables([self._kept[unit] for unit in units or self._kept])
        paths = sorted(self.folder.glob("*.parquet"))
        if units is not None:
            paths = [self._path(unit) for unit in units]
        if not paths:
            raise InputError(f"{self.folder} holds no rows")
        return pa.concat_tables([_read(path) for path in paths])

    def _path(self, unit: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', unit)}.parquet"


def _read(path: Path) -> Rows:
    try:
        return pq.read_table(path, partitioning=None)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{path} is not a readable shard ({error}): delete it to redo it"
        ) from None


def setting_columns(rows: Rows) -> list[str]:
    """Return the columns that describe a setting, the attack among them."""
    return [name for name in rows.column_names if name not in IMAGE_COLUMNS]


def accuracy(rows: Rows) -> Interval:
    """Return the share of correct rows, with its 95 % interval over images.

    >>> accuracy(pa.table({"correct": [True, False, True, True]})).value
    0.75
    """
    return proportion(int(pc.sum(rows["correct"].cast(pa.int64())).as_py() or 0), len(rows))


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Return one entry per setting: its description, its clean and its attacked accuracy.

    Clean rows (attack ``"none"``) are joined to every attack with the same other columns.
    """
    columns = setting_columns(rows)
    found = rows.group_by(columns, use_threads=False).aggregate(
        [("correct", "sum"), ("correct", "count")]
    )
    clean: dict[tuple[Any, ...], Interval] = {}
    attacked: list[tuple[dict[str, Any], Interval]] = []
    for entry in found.to_pylist():
        measured = proportion(entry.pop("correct_sum"), entry.pop("correct_count"))
        if entry["attack"] == CLEAN:
            clean[_without_attack(entry)] = measured
        else:
            attacked.append((entry, measured))
    names = columns
    bare = [(dict(zip(_kept(names), key, strict=True)) | {"attack": CLEAN}, None) for key in clean]
    return [
        {
            "description": entry,
            "clean": _told(clean.get(_without_attack(entry))),
            "attacked": _told(measured),
        }
        for entry, measured in (attacked or bare)
    ]


_ATTACK_COLUMNS = ("attack", "radius")


def _kept(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in _ATTACK_COLUMNS]


def _without_attack(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in _kept(list(entry)))


def _told(measured: Interval | None) -> dict[str, float | int] | None:
    return None if measured is None else measured.as_dict()
