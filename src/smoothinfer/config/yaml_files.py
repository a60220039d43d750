"""Settings in YAML: files that extend each other, scales, changes; dataclasses filled from them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from smoothinfer.config.components import Component, number
from smoothinfer.errors import InputError, unknown

SCALES = ("short", "paper", "smoke")


def read_scaled(
    path: str | Path, scale: str = "short", smoke: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a settings file says at ``scale``.

    A file may say ``extends: other.yaml``, a file beside it, and give only what differs. As
    written it is the ``"short"`` form; under ``scales`` it says what differs at others.

    Args:
        path: of the YAML file.
        scale: one of ``SCALES``.
        smoke: what differs at scale ``"smoke"`` in every file of this kind.

    Raises:
        InputError: the file is missing or malformed, or the scale is unknown.
    """
    path = Path(path)
    if not path.is_file():
        shipped = [str(found) for found in sorted(Path("recipes").rglob("*.yaml"))]
        raise InputError(f"no such recipe: {path}; here are {', '.join(shipped) or 'none'}")
    if scale not in SCALES:
        raise unknown("scale", scale, SCALES)
    content = _read_file(path)
    scales = content.pop("scales", {})
    if scale == "paper" and "paper" not in scales:
        raise InputError(f"{path} does not say how long the paper's is")
    if scale == "smoke":
        content = _merged(content, smoke or {})
    return _merged(content, scales.get(scale, {}))


def _read_file(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return what ``path`` says, on top of what it extends; whole keys replace each other."""
    if path in below:
        raise InputError(f"{path} extends itself")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except OSError as error:
        raise InputError(f"{below[-1]} extends {path}, which cannot be read") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping, not {content!r}")
    own = content.get("scales", {})
    if not isinstance(own, dict) or not set(own) <= set(SCALES):
        raise InputError(f"scales of {path} must be a mapping from {' or '.join(SCALES)}")
    base = content.pop("extends", None)
    if base is None:
        return content
    held = _read_file((path.parent / str(base)).resolve(), (*below, path.resolve()))
    return held | content | {"scales": _merged(held.get("scales", {}), own)}


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``above`` on top of ``below``, key by key inside; a named component is replaced.

    >>> _merged({"attack": "pgd", "ball": "linf"}, {"attack": {"steps": 2}, "ball": {"name": "l2"}})
    {'attack': {'name': 'pgd', 'steps': 2}, 'ball': {'name': 'l2'}}
    """
    found = dict(below)
    for key, value in above.items():
        held = found.get(key)
        if isinstance(held, str) and isinstance(value, Mapping):
            held = Component.of(held).written()
        inside = isinstance(held, Mapping) and isinstance(value, Mapping) and "name" not in value
        found[key] = _merged(held, value) if inside else value  # type: ignore[arg-type]
    return found


def changed(content: dict[str, Any], changes: Iterable[str]) -> dict[str, Any]:
    """Return ``content`` with ``dotted.key=value`` changes, values read as YAML.

    >>> changed({"model": {"name": "resnet20"}}, ["model.width=32", "lr=0.1"])
    {'model': {'name': 'resnet20', 'width': 32}, 'lr': 0.1}
    """
    content = {
        key: dict(value) if isinstance(value, dict) else value for key, value in content.items()
    }
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"cannot read {change!r}: write key=value")
        *path, last = key.strip().split(".")
        inside = content
        for part in path:
            held = inside.get(part) or {}
            if not isinstance(held, str | Mapping):
                raise InputError(f"cannot read {change!r}: {part} holds no keys")
            inside[part] = {"name": held} if isinstance(held, str) else dict(held)
            inside = inside[part]
        try:
            inside[last] = number(yaml.safe_load(value))
        except yaml.YAMLError as error:
            raise InputError(f"cannot read {change!r}: {error}") from error
    return content


def filled(kind: type, content: Any, where: str) -> Any:
    """Return the dataclass ``kind`` filled from ``content``, every value checked.

    Raises:
        InputError: a key is unknown (the message lists the valid ones) or a value has the
            wrong type.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{where} must be a mapping, not {content!r}")
    hints = typing.get_type_hints(kind)
    for key in content:
        if key not in hints:
            raise unknown(f"key of {where}", key, hints)
    return kind(
        **{key: _read(hints[key], value, f"{where}: {key}") for key, value in content.items()}
    )


def _read(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint) if typing.get_origin(hint) not in (list, dict) else (hint,)
    options = options or (hint,)
    if value is None and type(None) in options:
        return None
    if Component in options:
        if dict[str, Component] in options and isinstance(value, Mapping) and "name" not in value:
            return {key: Component.of(each) for key, each in value.items()}
        try:
            return Component.of(value)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    if dataclasses.is_dataclass(options[0]):
        return filled(typing.cast(type, options[0]), value, where)
    bases = [typing.get_origin(option) or option for option in options]
    fitting = next((base for base in bases if type(value) is base), bases[0])
    return _plain_value(fitting, number(value), where)


def _plain_value(kind: Any, value: Any, where: str) -> Any:
    base = typing.get_origin(kind) or kind
    if base is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if base is float and isinstance(value, str):  # YAML reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            pass
    if base is str and isinstance(value, bool):  # YAML reads on and off as truth values
        return "on" if value else "off"
    if not isinstance(value, base) or (base is int and isinstance(value, bool)):
        raise InputError(f"{where} must be {base.__name__}, not {value!r}")
    return value


def plain(value: Any) -> Any:
    """Return ``value`` as plain YAML values, ready for `filled`."""
    if isinstance(value, Component):
        return value.written()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value
