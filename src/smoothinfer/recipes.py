"""Recipes: a frozen dataclass filled from YAML and ``--set key=value``, and what it builds."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from smoothinfer.attacks import ATTACKS
from smoothinfer.components import Component, number
from smoothinfer.errors import InputError, unknown
from smoothinfer.models import MODELS, Normalize
from smoothinfer.noise import NOISES, NoisyModel
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.numerics.randomness import derive_seed, isolated_rng
from smoothinfer.training.loop import Training
from smoothinfer.training.losses import LOSSES
from smoothinfer.training.schedules import SCHEDULES


@dataclass(frozen=True)
class NoisePlan:
    """Where noise enters: a component of ``NOISES`` at each place, or none.

    At weights and activations a mapping from layer patterns to components works too.
    """

    inputs: Component | None = None
    weights: Component | dict[str, Component] | None = None
    activations: Component | dict[str, Component] | None = None
    side: str = "output"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, in pixel units; none to measure the data."""

    mean: list[float] | None = None
    std: list[float] | None = None


@dataclass(frozen=True)
class Validation:
    """Images held out from the training set; the first ``images`` of them are used each epoch."""

    held_out: int = 5000
    images: int = 1000
    score: str = "attacked"

    def __post_init__(self) -> None:
        if self.score not in ("attacked", "clean"):
            raise unknown("validation.score", self.score, ("attacked", "clean"))


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training makes, but the data."""

    about: str = ""
    seed: int = 0
    model: Component = Component("resnet20")
    normalise: Normalisation = Normalisation()
    noise: NoisePlan = NoisePlan()
    loss: Component = Component("adversarial", {"w": 0.5})
    attack: Component = Component("pgd", {"steps": 7})
    judge: Component | None = None
    ball: Component = Component("linf", {"radius": 8 / 255})
    epochs: int = 25
    batch_size: int = 128
    lr: float = 0.2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 1e-4
    noise_decay: float | None = None
    noise_lr: float = 1.0
    clip: float = 0.0
    schedule: Component = Component("one_cycle")
    crop: int = 4
    flip: bool = True
    precision: str = "auto"
    channels_last: bool = True
    compile: str = "auto"
    accumulate: int = 1
    ema: float = 0.0
    patience: int = 0
    trackers: list[str] = dataclasses.field(default_factory=list)
    start: str | None = None
    save_seconds: float = 120.0
    validation: Validation = Validation()

    def training(self) -> Training:
        """Return the numbers of the training loop."""
        shared = {f.name for f in dataclasses.fields(Training)} - {"schedule", "trackers"}
        numbers = {name: getattr(self, name) for name in shared}
        schedule = self.schedule.bind("schedule", SCHEDULES)
        return Training(schedule=schedule, trackers=tuple(self.trackers), **numbers)

    def build_ball(self) -> Ball:
        """Return the ball of the attack."""
        return self.ball.bind("ball", BALLS)()

    def build_attack(self) -> Callable[..., Any]:
        """Return the attack of the training, with its options and its ball bound."""
        return self._bound(self.attack, "attack")

    def build_judge(self) -> Callable[..., Any]:
        """Return the attack of the validation: that of the training, unless ``judge`` names one."""
        return self.build_attack() if self.judge is None else self._bound(self.judge, "judge")

    def _bound(self, component: Component, key: str) -> Callable[..., Any]:
        _refuse(component, key, "ball", "the recipe's own key 'ball'")
        return partial(component.bind("attack", ATTACKS), ball=self.build_ball())

    def build_loss(self) -> Callable[..., Any]:
        """Return the loss with its options and its attack bound."""
        _refuse(self.loss, "loss", "attack", "the recipe's own key 'attack'")
        return partial(self.loss.bind("loss", LOSSES), attack=self.build_attack())

    def build_model(self, shape: tuple[int, int, int], classes: int) -> NoisyModel:
        """Return the noisy network for images of ``shape``, freshly initialised.

        Raises:
            InputError: a name or an option is unknown, or normalisation is not given.
        """
        mean, std = self.normalise.mean, self.normalise.std
        if mean is None or std is None:
            raise InputError("normalise.mean and normalise.std must be given, one per channel")
        make = self.model.bind("model", MODELS)
        with isolated_rng(derive_seed(self.seed, "init")):
            foreign = ":" in self.model.name  # takes its own options, and no others
            network = make() if foreign else make(classes=classes, channels=shape[0])
            module = nn.Sequential(Normalize(mean, std), network)
            return NoisyModel(
                module,
                inputs=_noise(self.noise.inputs),
                weights=_noises(self.noise.weights),
                activations=_noises(self.noise.activations),
                side=self.noise.side,
                shape=shape,
            )

    def written(self) -> dict[str, Any]:
        """Return the recipe as plain YAML values, ready for `recipe_from`."""
        return _plain(self)


def load_recipe(path: str | Path, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe file and apply ``key=value`` changes (dotted keys reach inside).

    A recipe may say ``extends: other.yaml``, a file beside it, and give only what differs.

    Raises:
        InputError: the file is missing or malformed, or a key is unknown.
    """
    path = Path(path)
    if not path.is_file():
        shipped = [str(found) for found in sorted(Path("recipes").rglob("*.yaml"))]
        raise InputError(f"no such recipe: {path}; here are {', '.join(shipped) or 'none'}")
    return recipe_from(changed(_read_file(path), changes), str(path))


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
    base = content.pop("extends", None)
    if base is None:
        return content
    return _read_file((path.parent / str(base)).resolve(), (*below, path.resolve())) | content


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
            if isinstance(inside.get(part), str):
                inside[part] = {"name": inside[part]}
            inside[part] = dict(inside.get(part) or {})
            inside = inside[part]
        inside[last] = number(yaml.safe_load(value))
    return content


def recipe_from(content: Mapping[str, Any], where: str = "the recipe") -> Recipe:
    """Return the recipe written in ``content``.

    Raises:
        InputError: a key is unknown (the message lists the valid ones) or a value has the
            wrong type.

    >>> recipe_from({"epochs": 3, "attack": "pgd(steps=2)"}).attack.options
    {'steps': 2}
    """
    return _filled(Recipe, content, where)


def _filled(kind: type, content: Any, where: str) -> Any:
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
        return Component.of(value)
    if dataclasses.is_dataclass(options[0]):
        return _filled(typing.cast(type, options[0]), value, where)
    return _plain_value(options[0], number(value), where)


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


def _refuse(component: Component, kind: str, option: str, instead: str) -> None:
    if option in component.options:
        raise InputError(f"{kind}.{option} would be overridden: set {instead}")


def _noise(component: Component | None) -> Any:
    return None if component is None else component.bind("noise", NOISES)()


def _noises(plan: Component | dict[str, Component] | None) -> Any:
    if isinstance(plan, dict):
        return {pattern: _noise(component) for pattern, component in plan.items()}
    return _noise(plan)


def _plain(value: Any) -> Any:
    if isinstance(value, Component):
        return value.written()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value
