"""Encoded pictures to pixels: one size, one number of channels, and a fault that names its file."""

import contextlib
import io
import itertools
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from smoothinfer.data.guards import check_memory
from smoothinfer.errors import InputError
from smoothinfer.runtime.printable import error_line
from smoothinfer.runtime.progress import track

# A picture of a data set: its name in errors, and its file or content.
Picture = tuple[str, Path | bytes]

_GREY = ("1", "L", "LA")
_DEEP_GREY = ("I;16", "I;16L", "I;16B", "I;16N")
_COLOUR = ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr", "HSV")
_ANIMATED = ("GIF", "PNG", "TIFF", "WEBP")  # an MPO is a photograph with a preview
_MOST_PIXELS = 4096 * 4096


def decode(source: str, pictures: Sequence[Picture], others: Iterable[Picture] = ()) -> Tensor:
    """Return the pixels (N, C, H, W) of ``pictures``, uint8.

    They are colour (C = 3) if any picture of the data set is, else grey (C = 1). A palette is
    looked up, 16 bits become 8 by rounding, pictures are turned as their EXIF data say, and a
    transparency that hides nothing is dropped.

    Args:
        source: of the data, for errors.
        pictures: to decode.
        others: of the other splits, which may be colour.

    Raises:
        InputError: a picture is damaged, transparent, of another size than the first, too large,
            or of a kind that has no 8 bits; the message names it.
    """
    with warnings.catch_warnings():  # too large pictures are refused here, palettes looked up
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", "Palette images with Transparency")
        return torch.from_numpy(_decode_all(source, pictures, others))


def _decode_all(source: str, pictures: Sequence[Picture], others: Iterable[Picture]) -> np.ndarray:
    colour = any(map(_is_colour, itertools.chain(pictures, others)))
    pixels: np.ndarray | None = None
    for row, picture in enumerate(track(pictures, f"decoding {source}")):
        array = _decode_one(picture, colour, None if pixels is None else pixels.shape[2:])
        if pixels is None:
            check_memory(source, len(pictures) * array.nbytes)
            pixels = np.empty((len(pictures), *array.shape), np.uint8)
        pixels[row] = array
    if pixels is None:
        raise InputError(f"{source} holds no pictures")
    return pixels


def decode_one(name: str, content: bytes, formats: tuple[str, ...]) -> np.ndarray:
    """Return the pixels (C, H, W) of one picture, uint8, in colour if it is.

    Args:
        name: of the picture, for errors.
        content: of its file.
        formats: Pillow's names of the kinds that are tried; no other is even looked at.

    Raises:
        InputError: as `decode`.
    """
    picture = name, content
    return _decode_one(picture, _is_colour(picture, formats), None, formats)


@contextlib.contextmanager
def _opened(picture: Picture, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Open a picture; any fault, inside the block too, is an `InputError` that names it."""
    name, content = picture
    source = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        with Image.open(source, formats=formats) as image:
            yield image
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except Exception as error:
        raise InputError(f"{name} {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return _too_large("more than 100 million")
    kind = isinstance(error, UnidentifiedImageError)
    reason = "it is empty, or of no known kind" if kind else error_line(error)
    return f"cannot be read as a picture ({reason}): replace it or take it out"


def _too_large(pixels: str) -> str:
    return f"has {pixels} pixels, {_MOST_PIXELS:,} is the most: resize it first"


def _is_colour(picture: Picture, formats: tuple[str, ...] | None = None) -> bool:
    """Read the header only."""
    with _opened(picture, formats) as image:
        return image.mode not in (*_GREY, *_DEEP_GREY)


def _decode_one(
    picture: Picture,
    colour: bool,
    size: tuple[int, ...] | None,
    formats: tuple[str, ...] | None = None,
) -> np.ndarray:
    """Return the pixels (C, H, W) of a picture, which must have the ``size`` (H, W) if given."""
    with _opened(picture, formats) as image:
        _check_header(image, size)
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if size is not None and image.size != size[::-1]:
            raise InputError(_other_size(image, size))
        array = _eight_bits(image, "RGB" if colour else "L")
    return array.transpose(2, 0, 1) if colour else array[None]


def _check_header(image: Image.Image, size: tuple[int, ...] | None) -> None:
    """Refuse what the header tells before anything is decoded; a turn may still swap the sides."""
    width, height = image.size
    if width * height > _MOST_PIXELS:
        raise InputError(_too_large(f"{width:,} x {height:,}"))
    if size is not None and sorted(image.size) != sorted(size):
        raise InputError(_other_size(image, size))
    if image.mode not in (*_GREY, *_DEEP_GREY, *_COLOUR):
        raise InputError(f"has pixels of the kind {image.mode!r}: save it in 8 bits, grey or RGB")
    if image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
        raise InputError("holds several pictures: save each in a file of its own")


def _other_size(image: Image.Image, size: tuple[int, ...]) -> str:
    return (
        f"is {image.width}x{image.height}, the first picture is {size[1]}x{size[0]}: resize all "
        "to one size first"
    )


def _eight_bits(image: Image.Image, mode: str) -> np.ndarray:
    if image.mode in _DEEP_GREY:
        if "transparency" in image.info:
            raise InputError(_TRANSPARENT)
        grey = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        return grey if mode == "L" else np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data and _alpha(image).getextrema()[0] != 255:
        raise InputError(_TRANSPARENT)
    return np.asarray(image.convert(mode))


def _alpha(image: Image.Image) -> Image.Image:
    return image.convert("RGBA").getchannel("A")


_TRANSPARENT = "is transparent: put it on a background of your choice first"
