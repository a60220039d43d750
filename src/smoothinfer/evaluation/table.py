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
IMAGE_COLUMNS = (
    "image",
    "label",
    "predicted",
    "correct",
    "share",  # of passes that put the verdict first
    "hits",  # passes that put the label first
    "distance",
    "forwards",  # passes of the network spent on crafting the image
    "backwards",
)


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
            kept = [self._kept[unit] for unit in units or self._kept]
            return pa.concat_tables(rows.replace_schema_metadata(None) for rows in kept)
        paths = sorted(self.folder.glob("*.parquet"))
        if units is not None:
            paths = [self._path(unit) for unit in units]
        if not paths:
            raise InputError(f"{self.folder} holds no rows")
        return pa.concat_tables([_read(path) for path in paths])

    def seconds(self) -> dict[str, float]:
        """Return the wall-clock seconds an image that each attack took, over the folder's shards.

        No part of the rows: those repeat, seconds do not.
        """
        spent: dict[str, list[float]] = {}
        for path in [] if self.folder is None else sorted(self.folder.glob("*.parquet")):
            cost = pq.read_schema(path).metadata or {}
            if b"attack" in cost and cost[b"attack"].decode() != CLEAN:
                total = spent.setdefault(cost[b"attack"].decode(), [0.0, 0.0])
                total[0] += float(cost[b"seconds"])
                total[1] += float(cost[b"images"])
        return {attack: seconds / images for attack, (seconds, images) in spent.items()}

    def _path(self, unit: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{re.sub(r'[^A-Za-z0-9_.=-]+', '_', unit)}.parquet"


def _read(path: Path) -> Rows:
    try:
        return pq.read_table(path, partitioning=None).replace_schema_metadata(None)
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
    """Return one entry per setting: its ``description``, and what was measured ``clean`` and
    ``attacked``.

    Each has ``value``, ``low``, ``high`` (accuracy of the vote, 95 % interval over ``images``),
    ``per_draw`` (share of right passes), ``every_draw`` (images that all passes get right: the
    worst of them all) and, if attacked, ``forwards`` and ``backwards`` (passes of the network that
    the attack spent on an image). Clean rows (attack ``"none"``) are joined to every attack with
    the same other columns.
    """
    columns = setting_columns(rows)
    rows = rows.append_column("always", pc.equal(rows["hits"], rows["samples"]))
    means = [(name, "mean") for name in ("hits", "always", "forwards", "backwards")]
    found = rows.group_by(columns, use_threads=False).aggregate(
        [("correct", "sum"), ("correct", "count"), *means]
    )
    clean: dict[tuple[Any, ...], Measured] = {}
    attacked: list[tuple[dict[str, Any], Measured]] = []
    for entry in found.to_pylist():
        measured = _measured(entry)
        if entry["attack"] == CLEAN:
            clean[_without_attack(entry)] = measured
        else:
            attacked.append((entry, measured))
    bare = [
        (dict(zip(_kept(columns), key, strict=True)) | {"attack": CLEAN}, None) for key in clean
    ]
    return [
        {
            "description": entry,
            "clean": clean.get(_without_attack(entry)),
            "attacked": measured,
        }
        for entry, measured in (attacked or bare)
    ]


Measured = dict[str, float | int]
_ATTACK_COLUMNS = ("attack", "radius")


def _measured(entry: dict[str, Any]) -> Measured:
    """Take what was measured out of an aggregated ``entry``; its description stays."""
    share = proportion(entry.pop("correct_sum"), entry.pop("correct_count"))
    found = share.as_dict() | {
        "per_draw": entry.pop("hits_mean") / entry["samples"],
        "every_draw": entry.pop("always_mean"),
    }
    costs = {name: entry.pop(f"{name}_mean") for name in ("forwards", "backwards")}
    return found if entry["attack"] == CLEAN else found | costs


def _kept(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in _ATTACK_COLUMNS]


def _without_attack(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in _kept(list(entry)))
