"""A folder of rows: Parquet shards, each written once, with its checksum in its name."""

import hashlib
import io
import json
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from smoothinfer.errors import InputError
from smoothinfer.evaluation.makers import Maker, count_makers
from smoothinfer.evaluation.rows import CLEAN, Rows, crafted_setting, setting_columns
from smoothinfer.runtime.files import read_content, write_bytes
from smoothinfer.runtime.locks import wait_for_folder

_LONGEST = 160  # letters of a unit in the name of a file
_NAME = re.compile(r"(?P<unit>.+)\.(?P<digest>[0-9a-f]{16})\.parquet")


class Store:
    """A folder of immutable shards, one for each unit of work.

    A shard is called ``UNIT.SHA.parquet``, SHA the beginning of its content's SHA-256: a changed
    byte is found before anything is computed from it. Of two processes that compute a unit at once,
    the first one's shard stays.

    Args:
        folder: made when the first shard is written; ``None`` keeps the rows in memory.

    Raises:
        InputError: a shard is damaged; the message names the file.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._kept: dict[str, Rows] = {}
        self._paths = self._listed()
        self._about: dict[Path, dict[str, str]] = {}

    def has(self, unit: str) -> bool:
        """Say whether the work ``unit`` is done."""
        return unit in self._kept or _file_name(unit) in self._paths

    def refresh(self) -> None:
        """Take notice of what other processes have written."""
        self._paths = self._listed()

    def check(self, units: Iterable[str]) -> None:
        """Read the stored ones of ``units``, whose names begin with that of their attack.

        Raises:
            InputError: some are damaged, or hold another attack; the message names the files.
        """
        faults = []
        for unit in units:
            path = self._paths.get(_file_name(unit))
            try:
                attack = None if path is None else _metadata_of(_read(path)).get("attack")
            except InputError as error:
                faults.append(str(error))
                continue
            if attack is not None and not unit.startswith(f"{attack}-"):
                faults.append(f"{path} holds rows of attack {attack!r}: call yours differently")
        if faults:
            raise InputError("; ".join(faults))

    def write(self, unit: str, rows: Rows) -> None:
        """Keep the rows of ``unit``, whole or not at all."""
        if self.folder is None:
            self._kept[unit] = rows
            return
        self._write(_file_name(unit), _encode(rows))

    def read(self, units: Sequence[str] | None = None) -> Rows:
        """Return the rows of ``units`` (of all shards by default), in the order of the units."""
        if self.folder is None:
            kept = [self._kept[unit] for unit in units or self._kept]
            return pa.concat_tables(rows.replace_schema_metadata(None) for rows in kept)
        self.refresh()
        names = sorted(self._paths) if units is None else [_file_name(unit) for unit in units]
        missing = [name for name in names if name not in self._paths]
        if missing or not names:
            raise InputError(f"{self.folder} lacks rows of {', '.join(missing[:3]) or 'anything'}")
        tables = [_read(self._paths[name]) for name in names]
        return pa.concat_tables(table.replace_schema_metadata(None) for table in tables)

    def seconds(self, units: Iterable[str]) -> dict[str, float]:
        """Return the wall-clock seconds per image of the attacked ``units``.

        They are no part of the rows, which repeat exactly; seconds do not.

        Returns:
            A number for each setting in which an attack ran, by its `crafted_setting`.
        """
        spent: dict[str, list[float]] = {}
        for cost in self._metadata({_file_name(unit) for unit in units}):
            if cost.get("attack", CLEAN) != CLEAN:
                total = spent.setdefault(cost["setting"], [0.0, 0.0])
                total[0] += float(cost["seconds"])
                total[1] += float(cost["images"])
        return {setting: seconds / images for setting, (seconds, images) in spent.items()}

    def makers(self, units: Iterable[str]) -> list[Maker]:
        """Return what made ``units``: versions and computers, each with the number of its units."""
        return count_makers(self._metadata({_file_name(unit) for unit in units}))

    def keys_like(self, unit: str) -> list[dict[str, str]]:
        """Return the keys of all stored shards with the attack and batch of ``unit``."""
        prefix = f"{_plain(unit.rpartition('-')[0])}-"[:_LONGEST]
        names = [name for name in self._paths if name.startswith(prefix)]
        return [json.loads(each["key"]) for each in self._metadata(names) if "key" in each]

    def _metadata(self, names: Collection[str] | None = None) -> Iterator[dict[str, str]]:
        """Yield the metadata of the shards called ``names``, or of all; each is read once."""
        listed = self._listed()
        for path in (listed[name] for name in listed if names is None or name in names):
            try:
                if path not in self._about:
                    self._about[path] = _about(_read(path))
                yield self._about[path]
            except InputError as error:  # of another setting, perhaps: its rows are not asked for
                warnings.warn(f"{error}; its costs do not count", stacklevel=3)

    def take(self, folder: str | Path, units: Iterable[str]) -> tuple[int, int]:
        """Copy the shards of ``units`` from another store, checked.

        Returns:
            How many shards were new, and how many belong to other units and were not copied.

        Raises:
            InputError: there are none, or some are damaged; the good ones were copied.
        """
        theirs = Store(folder)._listed()
        if not theirs:
            raise InputError(f"{folder} holds no rows")
        wanted = set(map(_file_name, units))
        new = [name for name in theirs if name in wanted and not self.has(name)]
        damaged = []
        for name in new:
            try:
                self._write(name, _read_checked(theirs[name]))
            except InputError as error:
                damaged.append(str(error))
        if damaged:
            raise InputError("; ".join(damaged))
        return len(new), len(set(theirs) - wanted)

    def _write(self, name: str, content: bytes) -> None:
        assert self.folder is not None
        path = self.folder / f"{name}.{_digest(content)}.parquet"
        with wait_for_folder(self.folder):
            self.refresh()
            if name not in self._paths:
                write_bytes(path, content)
                self._paths[name] = path

    def _listed(self) -> dict[str, Path]:
        if self.folder is None:
            return {}
        matches = [
            (_NAME.fullmatch(path.name), path) for path in sorted(self.folder.glob("*.parquet"))
        ]
        # Reversed: of two shards of a unit the first by name stays.
        return {match["unit"]: path for match, path in reversed(matches) if match}


def write_table(rows: Rows, path: Path) -> str:
    """Write a finished table, whole or not at all; return its SHA-256."""
    content = _encode(rows)
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def _encode(rows: Rows) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(rows, buffer, compression="zstd")
    return buffer.getvalue()


def decode(content: bytes) -> Rows:
    """Return the rows of the content of a Parquet file.

    In this thread alone: Arrow's own threads release the content late, and a program that ends
    meanwhile, as with an error, is aborted by the interpreter.
    """
    with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
        return file.read(use_threads=False)


def have_one_file(units: Iterable[str]) -> bool:
    """Say whether two of ``units`` would share a file, their names being spelt alike."""
    units = list(units)
    return len(set(map(_file_name, units))) < len(set(units))


def _file_name(unit: str) -> str:
    name = _plain(unit)
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{_digest(unit.encode())}"


def _plain(unit: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", unit)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _read_checked(path: Path) -> bytes:
    content = read_content(path)
    if not path.name.endswith(f".{_digest(content)}.parquet"):
        raise InputError(f"{path} is damaged (its checksum differs): delete it to redo it")
    return content


def _metadata_of(rows: Rows) -> dict[str, str]:
    metadata = rows.schema.metadata or {}
    return {key.decode(): value.decode() for key, value in metadata.items()}


def _about(rows: Rows) -> dict[str, str]:
    """Return the metadata of a shard, and the setting in which its examples were crafted."""
    first = rows.select(setting_columns(rows)).slice(0, 1).to_pylist()
    return _metadata_of(rows) | {"setting": crafted_setting(first[0] if first else {})}


def _read(path: Path) -> Rows:
    try:
        return decode(_read_checked(path))
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} is not a readable shard ({error}): delete it to redo it"
        ) from None
