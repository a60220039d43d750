"""The tables and figures of the paper, as recipes: sweeps, what is drawn, what the paper says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.checkpoints import find_checkpoint, shipped
from smoothinfer.config.yaml_files import changed, filled, read_scaled
from smoothinfer.errors import InputError, unknown
from smoothinfer.workflows.sweep import SMOKE, SweepRecipe

_FOLDER = "paper"
_SHIPPED = "-resnet20-cifar10"  # what a shipped model is called after its recipe
_IN_RUNS = re.compile(r"\{runs\}/([\w./-]+)")


@dataclass(frozen=True)
class Figure:
    """A picture of one part: accuracy along ``axis``, a curve for each ``series``.

    Besides the columns of the rows there are ``gradients`` (that the attack took for an image) and
    ``family`` (the attack without its options).

    ``at`` holds other columns fixed, such as ``{samples: 512}``.
    """

    part: str
    axis: str
    series: str = "rule"
    at: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One table or figure: sweeps that differ a little, and what the paper says.

    Attributes:
        title, about: what is shown.
        common: settings of every sweep, as in a sweep recipe.
        parts: a name for each sweep, and what is special to it.
        over: settings that replace those of all parts, as a scale may.
        figures: what is drawn.
        published: rows of the paper: ``row`` (its name), ``clean``, ``attacked`` in %, missing
            where not known; ``part`` and ``at`` say which of our settings it compares with.
    """

    title: str
    about: str = ""
    common: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    over: dict[str, Any] = field(default_factory=dict)
    figures: list[Any] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)

    def sweeps(self, changes: Iterable[str] = ()) -> dict[str, SweepRecipe]:
        """Return the sweep of every part."""
        return {
            name: filled(SweepRecipe, changed(self.common | part | self.over, changes), name)
            for name, part in self.parts.items()
        }

    def drawn(self) -> list[Figure]:
        """Return the figures, checked."""
        return [filled(Figure, each, "figures") for each in self.figures]


def experiments() -> dict[str, Path]:
    """Return the files of the experiments that come with the package, by name."""
    folder = shipped("recipes", f"{_FOLDER}/table1.yaml").parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_experiment(name: str, scale: str = "short", runs: str | Path = "runs") -> Experiment:
    """Read the experiment ``name`` at ``scale``; ``{runs}/MODEL`` in it is where that model is.

    Raises:
        InputError: there is no such experiment or scale.
    """
    known = experiments()
    if name not in known:
        raise unknown("experiment", name, known)
    smoke = {"over": {**SMOKE, "attacks": ["pgd(steps=2)"]}}
    content = _placed(read_scaled(known[name], scale, smoke), str(runs))
    found: Experiment = filled(Experiment, content, str(known[name]))
    return found


def where(model: str, runs: str | Path) -> str | None:
    """Return where ``model`` is: in ``runs``, at its own path or among the shipped; or ``None``."""
    shipped_as = model.replace("/", "-").removesuffix(".safetensors") + _SHIPPED
    places = (str(Path(runs) / model), model, shipped_as)
    return next((place for place in places if is_model(place)), None)


def is_model(place: str) -> bool:
    """Say whether `load` will find something under this name."""
    if ":" in place:
        return True
    try:
        path = find_checkpoint(place)
    except InputError:
        return False
    return path is not None and path.is_file()


def _placed(value: Any, runs: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _placed(each, runs) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, runs) for each in value]
    if not isinstance(value, str):
        return value
    return _IN_RUNS.sub(lambda found: where(found[1], runs) or f"{runs}/{found[1]}", value)
