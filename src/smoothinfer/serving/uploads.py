"""What a client sends, made an image (C, H, W) in [0, 1], or refused in one line."""

import json
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from smoothinfer.data.pictures import decode_one
from smoothinfer.errors import InputError

# Many phones write a JPEG with a preview, an MPO.
PICTURES = {"image/png": ("PNG",), "image/jpeg": ("JPEG", "MPO"), "image/webp": ("WEBP",)}
_DEEPEST = 4  # brackets in a row


def read_upload(kind: str, content: bytes, shape: tuple[int, int, int]) -> Tensor:
    """Return the image that a request holds.

    A picture of another size is scaled until it covers the model's and cut to its middle. JSON is
    ``{"image": [[[...]]]}`` with pixels in [0, 1] and exactly the model's shape.

    Args:
        kind: the content type, without parameters.
        content: of the request.
        shape: (C, H, W) that the model takes.

    Raises:
        InputError: it is no such image.
    """
    if kind in PICTURES:
        return _from_picture(content, kind, shape)
    if kind == "application/json":
        return _from_json(content, shape)
    raise InputError(
        f"content type {kind or 'missing'!r:.60} is not served: send {', '.join(PICTURES)} or "
        "application/json"
    )


def _from_picture(content: bytes, kind: str, shape: tuple[int, int, int]) -> Tensor:
    channels, height, width = shape
    if channels not in (1, 3):
        raise InputError(f"pictures have 1 or 3 channels, the model takes {channels}: send JSON")
    try:
        pixels = decode_one("the picture", content, PICTURES[kind])
    except InputError as error:
        if not isinstance(error.__cause__, UnidentifiedImageError):
            raise
        message = f"the upload cannot be read as a picture of type {kind}"
        raise InputError(f"{message}: send the content type that it has") from None
    grey = len(pixels) == 1
    picture = Image.fromarray(pixels[0] if grey else pixels.transpose(1, 2, 0))
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    rows = torch.from_numpy(array.copy())
    return rows[None] if channels == 1 else rows.permute(2, 0, 1).contiguous()


def _from_json(content: bytes, shape: tuple[int, int, int]) -> Tensor:
    try:
        held = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the body is no JSON: {error}") from None
    rows: Any = held.get("image") if isinstance(held, dict) else None
    if not isinstance(rows, list):
        raise InputError('the body must be {"image": [[[...]]]}, channels of rows of pixels')
    found = _shape_of(rows)
    if found != shape:
        raise InputError(f"the image has shape {found}, the model takes {shape}")
    flat = [pixel for channel in rows for row in channel for pixel in row]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in flat):
        raise InputError("pixels must be numbers")
    if not all(0 <= each <= 1 for each in flat):  # which no NaN does
        raise InputError("pixels must lie in [0, 1]")
    return torch.tensor(flat, dtype=torch.float32).view(shape)


def _shape_of(rows: Any) -> tuple[int, ...]:
    """Return the shape of nested lists of equal lengths.

    Raises:
        InputError: lengths differ.
    """
    shape: list[int] = []
    level = [rows]
    while level and isinstance(level[0], list) and len(shape) < _DEEPEST:
        lengths = {len(each) if isinstance(each, list) else -1 for each in level}
        if len(lengths) > 1:
            raise InputError("the rows of the image differ in length")
        shape.append(lengths.pop())
        level = [below for each in level for below in each]
    return tuple(shape)
