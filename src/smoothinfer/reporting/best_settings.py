"""The settings of a long sweep that its reader looks for first."""

from collections.abc import Mapping, Sequence
from typing import Any

Entry = Mapping[str, Any]


def best_entries(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Return the entries of the best settings, by accuracy under their strongest attack.

    A small ball leaves more images than a large one, so each ball has its own best.

    Args:
        entries: of `summarise`.
        most: number of settings, shared between the balls; at least one of each is kept.

    >>> accuracies = {0.0: 0.2, 0.1: 0.4, 0.2: 0.3}  # by sigma
    >>> about = {s: {"attack": "pgd", "sigma": s} for s in accuracies}
    >>> entries = [{"description": about[s], "attacked": {"value": accuracies[s]}} for s in about]
    >>> [each["description"]["sigma"] for each in best_entries(entries, 2)]
    [0.1, 0.2]
    """
    settings: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        settings.setdefault(setting_of(entry), []).append(entry)
    if len(settings) <= most:
        return list(entries)
    balls: dict[tuple[Any, Any], list[list[Entry]]] = {}
    for group in settings.values():
        about = group[0]["description"]
        balls.setdefault((about.get("radius"), about.get("norm")), []).append(group)
    each = max(1, most // len(balls))
    kept = [g for groups in balls.values() for g in sorted(groups, key=_left, reverse=True)[:each]]
    wanted = {setting_of(group[0]) for group in kept}
    return [entry for entry in entries if setting_of(entry) in wanted]


def setting_of(entry: Entry) -> tuple[Any, ...]:
    """Return what makes a line of the table of accuracies: all but the attack."""
    return tuple(value for name, value in entry["description"].items() if name != "attack")


def _left(group: Sequence[Entry]) -> float:
    return min(float((entry["attacked"] or entry["clean"])["value"]) for entry in group)
