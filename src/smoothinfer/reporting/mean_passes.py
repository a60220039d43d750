"""One pass on a card: the mean over the passes of the largest vote, where there is one."""

from collections.abc import Mapping, Sequence
from typing import Any

Figure = Mapping[str, Any]
_PASSES = ("samples", "rule")
_BALL = ("attack", "radius", "norm")


def with_mean_passes(figures: Sequence[Figure]) -> list[Figure]:
    """Return the figures, in which one pass is the mean over passes where the card knows it.

    One pass is one draw of the weights for all images, and no interval over images covers its luck.
    Older cards hold the figures of the first pass; those of votes beside it hold the mean, the
    oldest without its interval, which then is left out.

    Args:
        figures: of a card.

    >>> one = {"value": 0.59, "low": 0.58, "high": 0.6, "images": 100}
    >>> many = one | {"value": 0.77, "per_draw": 0.67, "per_draw_interval": [0.66, 0.68]}
    >>> about = {"attack": "pgd", "rule": "soft", "samples": 1}
    >>> card = [{"description": about, "clean": one, "attacked": None}]
    >>> card += [{"description": about | {"samples": 8}, "clean": many, "attacked": None}]
    >>> [each["clean"]["value"] for each in with_mean_passes(card)]
    [0.67, 0.77]
    """
    means: dict[str, tuple[int, Figure]] = {}
    for figure in figures:
        samples = figure["description"]["samples"]
        for part in ("clean", "attacked"):
            key = _key(figure, part)
            if _has_mean(figure.get(part)) and samples > means.get(key, (1,))[0]:
                means[key] = samples, figure[part]
    return [_with_mean(figure, means) for figure in figures]


def _with_mean(figure: Figure, means: Mapping[str, tuple[int, Figure]]) -> Figure:
    if figure["description"]["samples"] != 1:
        return figure
    parts = {part: means.get(_key(figure, part)) for part in ("clean", "attacked")}
    return {**figure, **{part: _mean(found[1]) for part, found in parts.items() if found}}


def _mean(figure: Figure) -> dict[str, Any]:
    low, high = figure.get("per_draw_interval") or (None, None)
    value = figure["per_draw"]
    return {**figure, "value": value, "low": low, "high": high, "every_draw": value}


def _key(figure: Figure, part: str) -> str:
    """Name the images and the setting, without the passes; clean images are of no attack."""
    left_out = _PASSES if part == "attacked" else (*_PASSES, *_BALL)
    about = {k: v for k, v in figure["description"].items() if k not in left_out}
    return repr((part, (figure.get(part) or {}).get("images"), sorted(about.items())))


def _has_mean(figure: Figure | None) -> bool:
    """Say whether a figure holds a mean over passes; it, and the ends of its interval, are shares.

    A card may be a stranger's.
    """
    if not figure:
        return False
    ends = figure.get("per_draw_interval") or [0.0, 1.0]
    if not isinstance(ends, list) or len(ends) != 2:
        return False
    return all(
        type(each) in (int, float) and 0 <= each <= 1 for each in (figure.get("per_draw"), *ends)
    )
