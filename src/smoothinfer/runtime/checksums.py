"""Checksums that a file carries inside itself, so that file and checksum are written as one."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError

REMEDY = "run the command that wrote it again, or restore a copy"
CHECKSUM = "checksum"  # key in JSON and YAML
_MARK = "sha256:"
_TRAILER = b"\nsmoothinfer sha256:"
_TRAILER_SIZE = len(_TRAILER) + 64 + 1


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with its checksum as the last key.

    >>> content = with_checksum({"a": 1})
    >>> content["checksum"][:12], check_content(content, "a.json")
    ('sha256:015ab', {'a': 1})
    """
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    return rest | {CHECKSUM: _digest_of(rest)}


def check_content(content: Mapping[str, Any], path: str | Path, remedy: str = "") -> dict[str, Any]:
    """Return ``content`` of ``path`` without its checksum, which is compared.

    A file without any, written by hand or by another program, is taken as it is.

    Args:
        content: of a JSON or YAML file.
        path: named in the error.
        remedy: what to do about damage; by default to run the command again.

    Raises:
        InputError: the checksum is that of other content.
    """
    found = content.get(CHECKSUM)
    # A damaged key would make a file look as if it carried no checksum.
    marked = [each for each in content.values() if str(each).startswith(_MARK)]
    if found is None and not marked:
        return dict(content)
    rest = {key: value for key, value in content.items() if key != CHECKSUM}
    if not _is_digest_of(rest, found):
        text = "is damaged or was edited (its checksum differs)"
        raise InputError(f"{path} {text}: {remedy or REMEDY}")
    return rest


def append_checksum(content: bytes) -> bytes:
    """Return ``content`` with its checksum behind it."""
    return content + _trailer_of(content)


def check_bytes(content: bytes, path: str | Path, remedy: str) -> bytes:
    """Return ``content`` of ``path`` without the checksum behind it, which is compared.

    Raises:
        InputError: there is none, or it differs; the message ends with ``remedy``.
    """
    whole, trailer = content[:-_TRAILER_SIZE], content[-_TRAILER_SIZE:]
    if trailer != _trailer_of(whole):
        raise InputError(f"{path} is damaged (its checksum differs): {remedy}")
    return whole


def _trailer_of(content: bytes) -> bytes:
    return _TRAILER + hashlib.sha256(content).hexdigest().encode() + b"\n"


def _is_digest_of(content: Mapping[str, Any], found: object) -> bool:
    try:
        return found == _digest_of(content)
    except (ValueError, TypeError, RecursionError):  # what is no JSON, as NaN or a date of YAML
        return False


def _digest_of(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps(content, allow_nan=False))  # keys as text, in one order
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return _MARK + hashlib.sha256(text.encode()).hexdigest()
