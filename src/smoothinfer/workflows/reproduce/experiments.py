"""The tables and figures of the paper as recipes: sweeps, figures, and the published numbers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.checkpoints import find_checkpoint
from smoothinfer.config.settings_files import apply_overrides, read_settings
from smoothinfer.config.typed import from_dict
from smoothinfer.errors import InputError, unknown
from smoothinfer.shipped_files import shipped
from smoothinfer.sweep_recipe import SMOKE, SweepRecipe

_FOLDER = "paper"
_SHIPPED = "-resnet20-cifar10"  # ending of a shipped model's name, after that of its recipe
_IN_RUNS = re.compile(r"\{runs\}/([\w./-]+)")


@dataclass(frozen=True)
class Figure:
    """A figure of one part: accuracy along ``axis``, a curve for each ``series``.

    Besides the columns of the rows there are ``gradients`` (of the attack, per image) and
    ``family`` (the attack without its options).

    ``at`` fixes other columns, such as ``{samples: 512}``.
    """

    part: str
    axis: str
    series: str = "rule"
    at: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One table or figure: sweeps that differ a little, and the published numbers.

    Attributes:
        title, description: for the reader.
        common: settings of every sweep, as in a sweep recipe.
        parts: a name for each sweep, with its own settings.
        over: settings that replace those of all parts, as a scale may.
        figures: see `Figure`.
        published: rows of the paper: ``row`` (its name), ``clean``, ``attacked`` in %, missing
            where not known; ``part`` and ``at`` name the setting of ours to compare with.
    """

    title: str
    description: str = ""
    common: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    over: dict[str, Any] = field(default_factory=dict)
    figures: list[Any] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)

    def sweeps(self, overrides: Iterable[str] = ()) -> dict[str, SweepRecipe]:
        """Return the sweep of every part."""
        return {
            name: from_dict(
                SweepRecipe, apply_overrides(self.common | part | self.over, overrides), name
            )
            for name, part in self.parts.items()
        }

    def checked_figures(self) -> list[Figure]:
        """Return the figures, checked."""
        return [from_dict(Figure, each, "figures") for each in self.figures]


def list_experiments() -> dict[str, Path]:
    """Return the files of the experiments that come with the package, by name."""
    folder = shipped("recipes", f"{_FOLDER}/table1.yaml").parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_experiment(name: str, scale: str = "short", runs: str | Path = "runs") -> Experiment:
    """Read the experiment ``name`` at ``scale``; ``{runs}/MODEL`` in it is where that model is.

    Raises:
        InputError: there is no such experiment or scale.
    """
    known = list_experiments()
    if name not in known:
        raise unknown("experiment", name, known)
    smoke = {"over": {**SMOKE, "attacks": ["pgd(steps=2)"]}}
    content = _insert_models(read_settings(known[name], scale, smoke), str(runs))
    return from_dict(Experiment, content, str(known[name]))


def place_of(model: str, runs: str | Path) -> str | None:
    """Return the place of ``model``: in ``runs``, its own path, or a shipped name; or ``None``."""
    shipped_as = model.replace("/", "-").removesuffix(".safetensors") + _SHIPPED
    places = (str(Path(runs) / model), model, shipped_as)
    return next((place for place in places if is_model(place)), None)


def is_model(place: str) -> bool:
    """Say whether `load` finds a model under this name."""
    if ":" in place:
        return True
    try:
        path = find_checkpoint(place)
    except InputError:
        return False
    return path is not None and path.is_file()


def _insert_models(value: Any, runs: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _insert_models(each, runs) for key, each in value.items()}
    if isinstance(value, list):
        return [_insert_models(each, runs) for each in value]
    if not isinstance(value, str):
        return value
    return _IN_RUNS.sub(lambda match: place_of(match[1], runs) or f"{runs}/{match[1]}", value)
