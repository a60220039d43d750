"""Damaged and malicious files from a seed."""

import contextlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from smoothinfer.runtime.checksums import append_checksum, with_checksum
from tests.fuzz.forgeries import forge
from tests.fuzz.pools import VALUES, places_in
from tests.fuzz.readers import READERS, Reader


@dataclass
class Damage:
    """What was done to which file, for which reader."""

    reader: str
    path: Path
    kind: str
    checked: bool  # the file carries a checksum, which does not fit its content now


class _Marker:
    """A pickle of this would write a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


class Damages:
    """An endless source of damage to the files of a world.

    Args:
        seed: two sources with one seed are the same.
        root: the world, whole again before each case.
        marker: the path at which no code may write.
    """

    def __init__(self, seed: int, root: Path, marker: Path) -> None:
        self.chance, self.root, self.marker = random.Random(seed), root, marker

    def one(self) -> Damage:
        """Damage one file that a command reads."""
        name = self.chance.choice(list(READERS))
        reader = READERS[name]
        path = self.chance.choice(self._files(reader))
        kinds = [*_BYTES, *_BYTES, *_PLACES, *_KINDS.get(path.suffix, ())]
        kind = self.chance.choice(kinds)
        kind(self, path)
        inside = any(path.match(pattern) for pattern in reader.checked)
        return Damage(name, path, kind.__name__.strip("_"), inside and kind in _BYTES)

    def _files(self, reader: Reader) -> list[Path]:
        patterns = [*reader.files]
        self.chance.shuffle(patterns)
        for pattern in patterns:
            if found := sorted(path for path in self.root.glob(pattern) if path.is_file()):
                return found
        raise AssertionError(f"{patterns} name no file")

    def pickled(self) -> bytes:
        """A pickle that runs code when it is read."""
        return pickle.dumps({"model": _Marker(self.marker)})


def _flip(source: Damages, path: Path) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[source.chance.randrange(len(content))] ^= 1 << source.chance.randrange(8)
    path.write_bytes(content)


def _truncate(source: Damages, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: source.chance.randrange(max(1, len(content)))])


def _empty(source: Damages, path: Path) -> None:
    path.write_bytes(b"")


def _append(source: Damages, path: Path) -> None:
    path.write_bytes(path.read_bytes() + source.chance.randbytes(source.chance.choice((1, 99))))


def _zeros(source: Damages, path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = source.chance.randrange(max(1, len(content)))
    content[at : at + 64] = bytes(len(content[at : at + 64]))
    path.write_bytes(content)


def _noise(source: Damages, path: Path) -> None:
    path.write_bytes(source.chance.randbytes(source.chance.choice((1, 64, 5000))))


def _text(source: Damages, path: Path) -> None:
    """Other JSON, text in other encodings, and text that grows or nests."""
    path.write_bytes(source.chance.choice(_TEXTS))


def _pickle(source: Damages, path: Path) -> None:
    path.write_bytes(source.pickled())


def _zipped(source: Damages, path: Path) -> None:
    """A zip file with a pickle, as torch.save writes it, or a bomb."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", source.pickled())
        file.writestr("archive/version", "3\n")
        if source.chance.random() < 0.5:
            file.writestr("x_test.npy", bytes(2**24))


def _swap(source: Damages, path: Path) -> None:
    others = [p for p in source.root.rglob(f"*{path.suffix}") if p.is_file() and p != path]
    if others:
        other = source.chance.choice(sorted(others))
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs), other.write_bytes(mine)


def _huge(source: Damages, path: Path) -> None:
    with open(path, "r+b") as file:  # without blocks on the disk
        file.truncate(source.chance.choice((2**33, 2**40)))


def _folder(source: Damages, path: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(source: Damages, path: Path) -> None:
    path.unlink()


def _pipe(source: Damages, path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _link(source: Damages, path: Path) -> None:
    path.unlink()
    to = (path, path.parent / "nowhere", Path("/etc/hostname"), Path("/dev/zero"), path.parent)
    path.symlink_to(source.chance.choice(to))


def _parent(source: Damages, path: Path) -> None:
    """Put a file in the place of the folder."""
    if path.parent == source.root:
        return _missing(source, path)
    shutil.rmtree(path.parent)
    path.parent.write_text("a file")


def _restructure(source: Damages, path: Path) -> None:
    path.write_text(json.dumps(_restructured(source, path)))


def _restructure_forged(source: Damages, path: Path) -> None:
    """Change JSON, and give it a checksum that fits."""
    content = _restructured(source, path)
    if isinstance(content, dict):
        with contextlib.suppress(ValueError):  # NaN has none
            content = with_checksum(content)
    path.write_text(json.dumps(content))


def _restructured(source: Damages, path: Path) -> Any:
    """The JSON in ``path`` with a value of another kind, or without it, at some key."""
    content = yaml.safe_load(path.read_text())  # JSON is YAML
    for _ in range(source.chance.choice((1, 1, 3))):
        places = list(places_in(content)) if isinstance(content, dict | list) else []
        if not places:
            break
        holder, key = source.chance.choice(places)
        if source.chance.random() < 0.3:
            del holder[key]
        else:
            holder[key] = source.chance.choice(VALUES)
    return content


def _forge(source: Damages, path: Path) -> None:
    forge(source.chance, path, source.pickled())


def _picture(source: Damages, path: Path) -> None:
    """A picture that unpacks to far more, of a strange kind, or none."""
    file = io.BytesIO()
    kind = source.chance.choice(("bomb", "size", "mode", "header"))
    if kind == "bomb":
        Image.new("1", (30_000, 30_000)).save(file, "PNG")
    elif kind == "size":
        Image.new("L", (source.chance.choice((1, 9, 4000)), 8)).save(file, "PNG")
    elif kind == "mode":
        Image.new(source.chance.choice(("RGBA", "LA", "I;16", "P", "1")), (8, 8)).save(file, "PNG")
    else:
        head = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 6, 0, 0, 0)
        file.write(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + bytes(4))
    path.write_bytes(file.getvalue())


def _state(source: Damages, path: Path) -> None:
    """A state whose checksum fits, and whose pickle runs code."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", source.pickled())
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    path.write_bytes(append_checksum(file.getvalue()))


def _arrays(source: Damages, path: Path) -> None:
    """Arrays of other kinds and shapes, of objects, of sizes that no memory has."""
    odd: Any = source.chance.choice(_ARRAYS)
    arrays = {key: np.zeros((4, 8, 8), np.uint8) for key in ("x_train", "x_test")}
    arrays |= {key: np.arange(4) for key in ("y_train", "y_test")}
    arrays[source.chance.choice(list(arrays))] = odd(source)
    np.savez(path, **arrays, allow_pickle=True)


_TEXTS = (
    b"{}", b"[]", b"null", b"3", b'"a"', b"nan", b"{", b"\xef\xbb\xbf{}", "{}".encode("utf-16"),
    b"\xff\xfe\x00", b"[" * 100_000, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"9" * 10_000,
    b'{"a": ' + b"9" * 10_000 + b"}", b'{"a": 1e999}', b"\x00" * 100, b"a: &a [*a]\n",
    b"a: !!python/object/apply:os.mkdir [marker]\n", b"extends: /etc/passwd\n", b"<svg/>",
    b"a: &a [1,1,1,1,1,1,1,1,1,1]\n" + b"".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [{','.join([f'*{chr(97 + k)}'] * 10)}]\n".encode()
        for k in range(12)
    ),
)  # fmt: skip
_ARRAYS: tuple[Callable[[Damages], Any], ...] = (
    lambda source: np.array([_Marker(source.marker)], object),
    lambda source: np.zeros((4, 8, 8)),
    lambda source: np.zeros((4, 8), np.uint8),
    lambda source: np.zeros(0, np.uint8),
    lambda source: np.full(4, -1),
    lambda source: np.full(4, 2**62),
    lambda source: np.array(["a"] * 4),
    lambda source: np.array([float("nan")] * 4),
    lambda source: np.zeros((4, 8, 8), [("a", np.uint8)]),
    lambda source: np.array(3),
)
_BYTES = (_flip, _flip, _flip, _truncate, _empty, _append, _zeros, _noise, _text, _pickle, _zipped)
_PLACES = (_swap, _swap, _huge, _folder, _missing, _pipe, _link, _parent)
_JSON = (_restructure, _restructure, *[_restructure_forged] * 6)
_KINDS: dict[str, tuple[Callable[[Damages, Path], None], ...]] = {
    ".json": _JSON,
    ".yaml": _JSON,
    ".png": (_picture,) * 6,
    ".npz": (_arrays,) * 8,
    ".pt": (_state,) * 6,
    ".parquet": (_forge,) * 8,
    ".safetensors": (_forge,) * 8,
}
