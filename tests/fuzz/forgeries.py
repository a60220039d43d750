"""Files whose checksums fit and whose content does not: as a malicious person would write them."""

import hashlib
import json
import random
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from smoothinfer.runtime.files import read_json, write_json
from tests.fuzz.pools import VALUES


def forge(chance: random.Random, path: Path, pickled: bytes) -> None:
    """Change a table or a file of tensors, and everything that would betray it."""
    if path.suffix == ".safetensors":
        path.write_bytes(_tensors(chance, path.read_bytes(), pickled))
        _sign_card(path)
        return
    table = pq.read_table(path)
    content = _written(_changed(chance, table))
    if path.parent.name == "rows":  # the name is the checksum
        unit = path.name.rsplit(".", 2)[0]
        path.unlink()
        path = path.with_name(f"{unit}.{hashlib.sha256(content).hexdigest()[:16]}.parquet")
    path.write_bytes(content)
    _sign_summary(path, content)


def _tensors(chance: random.Random, content: bytes, pickled: bytes) -> bytes:
    (size,) = struct.unpack("<Q", content[:8])
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    body = content[8 + size :]
    name = chance.choice([key for key in header if key != "__metadata__"])
    kind = chance.choice(
        ("length", "dtype", "shape", "offsets", "name", "drop", "values", "pickle")
    )
    if kind == "length":
        return struct.pack("<Q", chance.choice((0, 2**63, size + 9))) + content[8:]
    if kind == "pickle":
        return pickled
    if kind == "dtype":
        header[name]["dtype"] = chance.choice(("F64", "I64", "BOOL", "F16", "X", 3))
    elif kind == "shape":
        header[name]["shape"] = chance.choice(([], [0], [2**40], [-1], "a", [1.5]))
    elif kind == "offsets":
        header[name]["data_offsets"] = chance.choice(([0, 2**50], [5, 1], [0, 0], "a", [0]))
    elif kind == "name":
        header[chance.choice(("", "a\x1b", "__metadata__", "x" * 999))] = header.pop(name)
    elif kind == "drop":
        del header[name]
    else:
        body = chance.choice((b"\xff" * len(body), bytes(len(body)), b"\x7f" * len(body)))
    if chance.random() < 0.3:
        header["__metadata__"] = chance.choice(
            ({}, {"cost": "[" * 999}, {"checksum": "a"}, {"a": 1})
        )
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _changed(chance: random.Random, table: pa.Table) -> pa.Table:
    """The table with a column of another kind, with other values, or without it."""
    at = chance.randrange(table.num_columns)
    name, kind = table.column_names[at], chance.choice(("drop", "values", "rows", "twice", "text"))
    if kind == "drop":
        return table.drop_columns([name])
    if kind == "rows":
        return table.slice(0, chance.choice((0, 1)))
    if kind == "twice":
        return table.append_column(name, table[at])
    if kind == "text":
        about = {
            b"key": b"{",
            b"models": b"[",
            b"attack": b"x",
            b"seconds": b"nan",
            b"images": b"0",
        }
        return table.replace_schema_metadata(
            {key: about[key] for key in chance.sample([*about], 3)}
        )
    values = [value for value in VALUES if isinstance(value, int | float | str) or value is None]
    value = chance.choice([v for v in values if not isinstance(v, int) or abs(v) < 2**63])
    return table.set_column(at, name, pa.array([value] * len(table)))


def _written(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def _sign_card(path: Path) -> None:
    card = path.with_suffix(".json")
    if card.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        write_json(card, read_json(card) | {"sha256": digest})


def _sign_summary(path: Path, content: bytes) -> None:
    summary = path.with_name("summary.json")
    if path.name == "table.parquet" and summary.is_file():
        digest = hashlib.sha256(content).hexdigest()
        write_json(summary, read_json(summary) | {"table": digest})
