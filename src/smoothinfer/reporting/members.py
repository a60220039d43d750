"""The files of a result folder, which may be a stranger's: read only if they lie in it."""

from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.reporting.shapes import check_shape
from smoothinfer.runtime.checksums import REMEDY
from smoothinfer.runtime.files import read_content, read_json
from smoothinfer.runtime.printable import printable

_DEEPEST = 40  # levels of JSON; to write it back takes a stack


def read_member(path: Path, folder: Path, most: int) -> bytes:
    """Return the content of a file of ``folder``.

    Args:
        path: the file, anywhere below ``folder``.
        folder: of the results.
        most: number of bytes that such a file may have.

    Raises:
        InputError: there is no such file, a link leads out of the folder, or this is no plain file
            or a very large one.
    """
    check_inside(path, folder)
    try:
        return read_content(path, most)
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None


def check_inside(path: Path, folder: Path) -> None:
    """Raise `InputError` if ``path`` leads out of ``folder``, as a link may."""
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # links in a circle
        inside = False
    if not inside:
        raise InputError(
            f"{path} leads out of {folder}: put the file itself there in place of the link"
        )


def read_json_member(name: str, folder: Path, shape: Any) -> dict[str, Any]:
    """Return the JSON of the file ``name`` in ``folder``, its strings printable.

    Args:
        name: of the file.
        folder: of the results.
        shape: see `check_shape`.

    Raises:
        InputError: see `read_member`; or the content is not of that shape.
    """
    path = folder / name
    check_inside(path, folder)
    content = read_json(path)
    try:
        content = printable_json(content)
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): {REMEDY}") from None
    found: dict[str, Any] = check_shape(content, shape, str(path))
    return found


def printable_json(value: Any, depth: int = 0) -> Any:
    """Return plain ``value`` with all its strings printable; line ends stay.

    Args:
        value: mappings, lists, strings, numbers, truth values, ``None``.
        depth: of ``value`` in what it is part of.

    Raises:
        ValueError: it is nested too deep.
    """
    if depth > _DEEPEST:
        raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        return {printable(str(k)): printable_json(each, depth + 1) for k, each in value.items()}
    if isinstance(value, list):
        return [printable_json(each, depth + 1) for each in value]
    return printable(value, keep="\n\t") if isinstance(value, str) else value
