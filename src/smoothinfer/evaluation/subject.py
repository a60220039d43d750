"""What a table of results is about, in one line: model, data, images, ball, noise, passes."""

from collections.abc import Mapping, Sequence
from typing import Any

from smoothinfer.config.components import grey_levels
from smoothinfer.types import CLEAN

_MANY = 4  # values of a column, all of which are written
NORMS = {"l2": "L2", "linf": "L-infinity", "l1": "L1"}


def subject_text(entries: Sequence[Mapping[str, Any]], by_default: bool = False) -> str:
    """Return in one line what ``entries`` were measured of and by.

    Args:
        entries: of `summarise`.
        by_default: whether nobody asked for the radius.

    >>> about = {"model": "runs/a", "data": "digits", "attack": "pgd", "radius": 8 / 255}
    >>> entry = {"description": about | {"samples": 8}, "clean": None, "attacked": {"images": 30}}
    >>> subject_text([entry], by_default=True)
    'runs/a, 30 images of digits, attacks within 8/255 in L-infinity (the default), votes of 8'
    """
    parts = [_values(entries, "model"), _images(entries), _ball(entries, by_default)]
    if any(entry["description"].get("sigma") is not None for entry in entries):
        parts.append(f"sigma {_values(entries, 'sigma')}")
    samples = _values(entries, "samples")
    parts.append("one pass" if samples == "1" else f"votes of {samples}")
    return ", ".join(part for part in parts if part)


def cell_text(value: Any) -> str:
    """Write a value of a setting.

    >>> cell_text(8 / 255), cell_text(0.060000001), cell_text(None)
    ('8/255', '0.06', '')
    """
    if isinstance(value, float):
        return grey_levels(value) or f"{value:.6g}"
    return "" if value is None else str(value)


def _values(entries: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the values of a column; of many the first and the last."""
    found = dict.fromkeys(entry["description"].get(name) for entry in entries)
    texts = [cell_text(value) for value in found if value is not None]
    return ", ".join(texts if len(texts) <= _MANY else [texts[0], "...", texts[-1]])


def _images(entries: Sequence[Mapping[str, Any]]) -> str:
    parts = [entry[part] for entry in entries for part in ("clean", "attacked")]
    counts = sorted({part["images"] for part in parts if part})
    data = _values(entries, "data")
    return f"{' or '.join(map(str, counts))} images{f' of {data}' if data else ''}"


def _ball(entries: Sequence[Mapping[str, Any]], by_default: bool) -> str:
    attacked = [entry for entry in entries if entry["description"]["attack"] != CLEAN]
    radii = _values(attacked, "radius")
    if not radii:
        return ""
    norms = dict.fromkeys(entry["description"].get("norm") or "linf" for entry in attacked)
    named = " and ".join(NORMS.get(norm, norm) for norm in norms)
    return f"attacks within {radii} in {named}{' (the default)' if by_default else ''}"
