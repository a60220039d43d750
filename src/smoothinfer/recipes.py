"""Recipes: a frozen dataclass filled from YAML and ``--set key=value``, and what it builds."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from smoothinfer.attacks import ATTACKS
from smoothinfer.config.components import Component
from smoothinfer.config.yaml_files import changed, filled, plain, read_scaled
from smoothinfer.errors import InputError, unknown
from smoothinfer.networks import MODELS, Normalize
from smoothinfer.noise import NOISES, NoisyModel
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.numerics.randomness import derive_seed, isolated_rng
from smoothinfer.training.losses import LOSSES
from smoothinfer.training.schedules import SCHEDULES
from smoothinfer.training.options import Training

Built = TypeVar("Built", bound=NoisyModel)


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
        for name in ("held_out", "images"):
            if getattr(self, name) < 1:
                raise InputError(f"validation.{name} must be at least 1, not {getattr(self, name)}")


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
    epoch_images: int = 0
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
    compile: str = "off"
    accumulate: int = 1
    ema: float = 0.0
    keep_worst: bool = False
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
        """Return the attack of the validation: ``judge``, or that of the training.

        An attack of a single step judges nothing, for a network can learn to hide its gradient
        from it: there `pgd` of 10 steps judges.
        """
        if self.judge is not None:
            return self._bound(self.judge, "judge")
        by = Component("pgd", {"steps": 10}) if _single_step(self.attack) else self.attack
        return self._bound(by, "attack")

    @property
    def risk(self) -> str:
        """What may go wrong with training on attacks of a single step, ``""`` for others."""
        if self.loss.name == "natural" or not _single_step(self.attack):
            return ""
        blind = self.judge is not None and _single_step(self.judge)
        told = ": nor does a judge of a single step see it, give one of more" if blind else ""
        return (
            "training on attacks of a single step may suddenly lose all robustness to longer ones "
            f"(catastrophic overfitting){told}"
        )

    def _bound(self, component: Component, key: str) -> Callable[..., Any]:
        _refuse(component, key, "ball", "the recipe's own key 'ball'")
        return partial(component.bind("attack", ATTACKS), ball=self.build_ball())

    def build_loss(self) -> Callable[..., Any]:
        """Return the loss with its options and its attack bound."""
        _refuse(self.loss, "loss", "attack", "the recipe's own key 'attack'")
        return partial(self.loss.bind("loss", LOSSES), attack=self.build_attack())

    def build_model(
        self,
        shape: tuple[int, int, int],
        classes: int,
        kind: type[Built] = NoisyModel,  # type: ignore[assignment]
    ) -> Built:
        """Return the noisy network for images of ``shape``, freshly initialised, as a ``kind``.

        Raises:
            InputError: a name or an option is unknown, or normalisation is not given.
        """
        mean, std = self.normalise.mean, self.normalise.std
        if mean is None or std is None:
            raise InputError("normalise.mean and normalise.std must be given, one per channel")
        make = self.model.bind("model", MODELS)
        with isolated_rng(derive_seed(self.seed, "init")):
            network = make(**self._sizes(make, shape[0], classes))
            if not isinstance(network, nn.Module):
                raise InputError(f"model {self.model} made no torch.nn.Module but {network!r:.80}")
            module = nn.Sequential(Normalize(mean, std), network)
            return kind(
                module,
                inputs=_noise(self.noise.inputs),
                weights=_noises(self.noise.weights),
                activations=_noises(self.noise.activations),
                side=self.noise.side,
                shape=shape,
            )

    def _sizes(self, make: Callable[..., Any], channels: int, classes: int) -> dict[str, int]:
        """Return the sizes of the data that the network's maker takes and that are left open."""
        sizes = {"classes": classes, "channels": channels}
        if ":" not in self.model.name:
            return sizes
        takes = inspect.signature(make).parameters
        sizes |= {"num_classes": classes, "in_channels": channels}
        return {k: v for k, v in sizes.items() if k in takes and k not in self.model.options}

    def written(self) -> dict[str, Any]:
        """Return the recipe as plain YAML values, ready for `recipe_from`."""
        return plain(self)


def load_recipe(path: str | Path, changes: Iterable[str] = (), scale: str = "short") -> Recipe:
    """Read a recipe file in one of its sizes and apply ``key=value`` changes (dotted keys).

    ``"short"`` is the recipe as it is written; ``"paper"`` as long as the paper's training;
    ``"smoke"`` is an epoch that shows that it runs, from no other model.

    Raises:
        InputError: the file is missing or malformed, a key or the scale is unknown.
    """
    content = read_scaled(path, scale, SMOKE)
    return recipe_from(changed(content, changes), str(path))


SMOKE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "start": None,
    "validation": {"held_out": 64, "images": 32},
}


def recipe_from(content: Mapping[str, Any], where: str = "the recipe") -> Recipe:
    """Return the recipe written in ``content``.

    Raises:
        InputError: a key is unknown (the message lists the valid ones) or a value has the
            wrong type.

    >>> recipe_from({"epochs": 3, "attack": "pgd(steps=2)"}).attack.options
    {'steps': 2}
    """
    return filled(Recipe, content, where)


def _single_step(attack: Component) -> bool:
    return attack.name == "fgsm" or attack.options.get("steps") == 1


def _refuse(component: Component, kind: str, option: str, instead: str) -> None:
    if option in component.options:
        raise InputError(f"{kind}.{option} would be overridden: set {instead}")


def _noise(component: Component | None) -> Any:
    return None if component is None else component.bind("noise", NOISES)()


def _noises(plan: Component | dict[str, Component] | None) -> Any:
    if isinstance(plan, dict):
        return {pattern: _noise(component) for pattern, component in plan.items()}
    return _noise(plan)
