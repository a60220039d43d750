"""Which stored units are taken over, which are computed anew, and why."""

from collections import Counter
from collections.abc import Mapping, Sequence

from smoothinfer.errors import InputError
from smoothinfer.evaluation.keys import Key
from smoothinfer.evaluation.makers import maker, maker_text
from smoothinfer.evaluation.store import Store

_PARTS = {
    "package code": "the code of smoothinfer",
    "user code": "the code of model or attack",
    "hooks": "the hooks on all modules",
    "unreadable": "something unreadable",
}


def reuse_lines(store: Store, keys: Mapping[str, Key]) -> list[str]:
    """Say how many units are taken over from ``store``, how many are computed anew, and why.

    Args:
        store: of rows.
        keys: of each unit.
    """
    store.refresh()
    taken = [unit for unit in keys if store.has(unit)]
    missing = {unit: key for unit, key in keys.items() if not store.has(unit)}
    lines = [f"{len(taken)} stored units are taken over{_other_makers(store, taken)}"]
    reasons = Counter(_changes(key, store.keys_like(unit)) for unit, key in missing.items())
    for reason, count in reasons.items():
        if reason:
            lines.append(f"{count} units are computed anew: {reason} since they were stored")
    return [*(lines if taken else lines[1:]), *_never_again(missing)]


def check_shareable(keys: Mapping[str, Key], parts: int) -> None:
    """Refuse to share out units among ``parts`` whose keys are others in each.

    Raises:
        InputError: what the units depend on cannot be read.
    """
    names = _unreadable(keys)
    if names and parts > 1:
        raise InputError(
            f"{names} cannot be read, so parts and processes cannot tell that they compute the "
            "same: run one process, without --shard"
        )


def _other_makers(store: Store, units: Sequence[str]) -> str:
    """Name what made ``units``, unless it was this version of the package on this computer."""
    same = {name: each for name, each in maker().items() if name != "code"}  # that is in the key
    made = [each for each in store.makers(units) if not same.items() <= each.items()]
    others = sorted({maker_text(each) for each in made})
    return f", made by {'; '.join(others)}" if others else ""


def _never_again(missing: Mapping[str, Key]) -> list[str]:
    names = _unreadable(missing)
    if not names:
        return []
    return [f"{len(missing)} units are computed anew each time: {names} cannot be read"]


def _unreadable(keys: Mapping[str, Key]) -> str:
    held = {key["unreadable"].rpartition(" #")[0] for key in keys.values() if "unreadable" in key}
    return ", ".join(sorted(held))


def _changes(key: Key, stored: Sequence[Key]) -> str:
    """Say in which parts ``key`` differs from the most similar of ``stored``; ``""`` for none.

    >>> _changes({"settings": "a", "model": "b"}, [{"settings": "a", "model": "c"}])
    'the model has changed'
    """
    alike = [each for each in stored if each.get("settings") == key["settings"]]
    differ = [
        [part for part in {**key, **each} if each.get(part) != key.get(part)] for each in alike
    ]
    if not differ or "unreadable" in key:  # said elsewhere
        return ""
    names = [_PARTS.get(part, f"the {part}") for part in min(differ, key=len)]
    have = "have" if len(names) > 1 or names[0].endswith(("s", "images")) else "has"
    return f"{' and '.join(names)} {have} changed"
