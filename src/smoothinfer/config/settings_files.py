"""Settings in YAML files that extend each other, at several scales, with changes on top."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smoothinfer.config.components import Component, parse_number
from smoothinfer.config.yaml_files import parse_yaml, read_yaml
from smoothinfer.errors import InputError, unknown

SCALES = ("short", "paper", "smoke")


def read_settings(
    path: str | Path, scale: str = "short", smoke: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the settings in a YAML file at ``scale``.

    A file may say ``extends: other.yaml``, a file beside it, and give only the differences. The
    file as written is the ``"short"`` scale; ``scales`` holds the differences at other scales.

    Args:
        path: of the YAML file.
        scale: one of ``SCALES``.
        smoke: the differences at scale ``"smoke"`` for every file of this kind.

    Raises:
        InputError: the file is missing or malformed, or the scale is unknown.
    """
    path = Path(path)
    if not path.is_file():
        here = [str(file) for file in sorted(Path("recipes").rglob("*.yaml"))]
        raise InputError(f"no such recipe: {path}; recipes here: {', '.join(here) or 'none'}")
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    content = _read_file(path)
    scales = content.pop("scales", {})
    if scale == "paper" and "paper" not in scales:
        raise InputError(f"{path} has no `scales: paper:` section, so --scale paper is unavailable")
    if scale == "smoke":
        content = _merge(content, smoke or {})
    return _merge(content, scales.get(scale, {}))


def _read_file(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the content of ``path`` on top of the file that it extends, key by key."""
    if path in extended_by:
        raise InputError(f"{path} extends itself")
    if extended_by and not path.is_file():
        raise InputError(f"{extended_by[-1]} extends {path}, which cannot be read")
    content = read_yaml(path) or {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} must be a mapping from names, not {content!r:.80}")
    scales = content.get("scales", {})
    if not isinstance(scales, dict) or not set(scales) <= set(SCALES):
        raise InputError(f"scales of {path} must be a mapping from {' or '.join(SCALES)}")
    base = content.pop("extends", None)
    if base is None:
        return content
    below = _read_file((path.parent / str(base)).resolve(), (*extended_by, path.resolve()))
    return below | content | {"scales": _merge(below.get("scales", {}), scales)}


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``above`` on top of ``below``, mapping by mapping; a named component is replaced.

    >>> _merge({"attack": "pgd", "ball": "linf"}, {"attack": {"steps": 2}, "ball": {"name": "l2"}})
    {'attack': {'name': 'pgd', 'steps': 2}, 'ball': {'name': 'l2'}}
    """
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, Mapping):
            old = Component.of(old).to_dict()
        inside = isinstance(old, Mapping) and isinstance(value, Mapping) and "name" not in value
        merged[key] = _merge(old, value) if inside else value  # type: ignore[arg-type]
    return merged


def apply_overrides(content: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Return ``content`` with ``dotted.key=value`` overrides, values read as YAML.

    >>> apply_overrides({"model": {"name": "resnet20"}}, ["model.width=32", "lr=0.1"])
    {'model': {'name': 'resnet20', 'width': 32}, 'lr': 0.1}
    """
    content = {
        key: dict(value) if isinstance(value, dict) else value for key, value in content.items()
    }
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"cannot read {override!r}: write key=value")
        *parents, last = key.strip().split(".")
        inside = content
        for parent in parents:
            old = inside.get(parent) or {}
            if not isinstance(old, str | Mapping):
                raise InputError(f"cannot read {override!r}: {parent} holds no keys")
            inside[parent] = Component.of(old).to_dict() if isinstance(old, str) else dict(old)
            inside = inside[parent]
        inside[last] = parse_number(parse_yaml(value, override))
    return content
