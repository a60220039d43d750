"""The pictures of a result folder: PNG files that lie in it, whatever else their names say."""

import functools
import io
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from smoothinfer.errors import InputError
from smoothinfer.reporting.members import read_member
from smoothinfer.runtime.printable import one_line, printable

_LARGEST = 8 * 2**20  # bytes
_MOST_PIXELS = 64_000_000
_MOST = 60  # pictures of one folder
_WIDTH = 1400  # pixels, on a page


@dataclass(frozen=True)
class Picture:
    """A PNG file.

    Attributes:
        name: of the file.
        content: its bytes.
        sheet: it shows adversarial examples.
    """

    name: str
    content: bytes
    sheet: bool = False

    @property
    def stem(self) -> str:
        return Path(self.name).stem


def read_pictures(folder: Path, drawn: Iterable[str]) -> tuple[list[Picture], list[str]]:
    """Return the pictures of a result folder, and what is left out and why, a line for each.

    These are the figures of a comparison, drawings beside the results, and sheets of adversarial
    examples. SVG files are not taken: they may hold scripts, and each figure is there as a PNG.

    Args:
        folder: of the results.
        drawn: names of the figures of a comparison, which lie in ``figures/``.
    """
    figures = list(dict.fromkeys(drawn))
    left_out = [f"figure {name!r}: it is no file's name" for name in figures if not _is_base(name)]
    paths = [(folder / "figures" / name, False) for name in figures if _is_base(name)]
    paths += [(path, False) for path in sorted(folder.glob("*.png"))]
    paths += [(path, True) for path in sorted(folder.glob("examples/**/*.png"))]
    if len(paths) > _MOST:
        left_out.append(f"{len(paths) - _MOST} pictures beyond the first {_MOST}")
    found = []
    for path, sheet in paths[:_MOST]:
        try:
            found.append(Picture(printable(path.name), _read_png(path, folder), sheet))
        except (InputError, OSError) as error:  # such as a name that is too long
            left_out.append(one_line(str(error)))
    return found, left_out


def _is_base(name: str) -> bool:
    """Say whether ``name`` is that of a file, and no path."""
    return name not in ("", ".", "..") and not set(name) & set("/\\\0")


def _read_png(path: Path, folder: Path) -> bytes:
    content = read_member(path, folder, _LARGEST)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, which are refused below
            with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
                pixels = image.width * image.height
                image.verify()
    except Exception as error:  # Pillow raises what its parser of the damaged part raises
        raise InputError(
            f"{path} is not a PNG file, or is damaged: {type(error).__name__}"
        ) from None
    if pixels > _MOST_PIXELS:
        raise InputError(f"{path} has {pixels:,} pixels, more than the {_MOST_PIXELS:,} allowed")
    return content


@functools.lru_cache(maxsize=128)
def shrunk(content: bytes) -> bytes:
    """Return a picture as WebP, at most 1,400 pixels wide: a page holds many."""
    with Image.open(io.BytesIO(content)) as picture:
        shown = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
        shown.thumbnail((_WIDTH, 4 * _WIDTH))
        file = io.BytesIO()
        shown.save(file, "webp", quality=80, method=4)
    return file.getvalue()
