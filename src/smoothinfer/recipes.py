"""Recipes: a frozen dataclass filled from YAML and ``--set key=value``, and the model it builds."""

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from smoothinfer.attacks import ARGUMENTS, ATTACKS
from smoothinfer.config.components import Component
from smoothinfer.config.settings_files import apply_overrides, read_settings
from smoothinfer.config.typed import from_dict, to_plain
from smoothinfer.config.user_code import running_code
from smoothinfer.data.guards import check_memory
from smoothinfer.errors import InputError, unknown
from smoothinfer.networks import MODELS, Normalize
from smoothinfer.noise import NOISES, NoisyModel
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.numerics.randomness import derive_seed, isolated_rng
from smoothinfer.training.losses import LOSSES
from smoothinfer.training.options import TrainingOptions

Built = TypeVar("Built", bound=NoisyModel)
_ARGUMENTS_OF_LOSS = ("model", "images", "labels", "attack=")


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

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise InputError("normalise needs both mean and std, or neither to measure the data")
        if self.mean is not None and len(self.mean) != len(self.std or []):
            raise InputError(f"normalise.mean {self.mean} and std {self.std} differ in length")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise InputError(f"normalise.std must be positive, not {self.std}")


@dataclass(frozen=True)
class Validation:
    """Images held out from the training set; ``images`` of them are used each epoch.

    These are some of each class, or with ``first`` the first ones, for data in random order.
    """

    held_out: int = 5000
    images: int = 1000
    first: bool = False
    score: str = "attacked"

    def __post_init__(self) -> None:
        if self.score not in ("attacked", "clean"):
            raise unknown("validation.score", self.score, ("attacked", "clean"))
        for name in ("held_out", "images"):
            if getattr(self, name) < 1:
                raise InputError(f"validation.{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True)
class Recipe(TrainingOptions):
    """Everything that decides the result of a training, except the data.

    The options of the loop are those of `TrainingOptions`.

    Attributes:
        description: for the reader.
        model: a component of ``MODELS``, or ``package.module:factory``.
        normalise: first layer of the model.
        noise: where noise enters.
        loss: a component of ``LOSSES``.
        attack: a component of ``ATTACKS``, for the adversarial examples of the training.
        validation_attack: the attack of the validation; by default that of the training.
        ball: of both attacks.
        init_from: a trained model whose weights the training starts from.
        validation: which images measure each epoch.
    """

    description: str = ""
    model: Component = Component("resnet20")
    normalise: Normalisation = Normalisation()
    noise: NoisePlan = NoisePlan()
    loss: Component = Component("adversarial", {"w": 0.5})
    attack: Component = Component("pgd", {"steps": 7})
    validation_attack: Component | None = None
    ball: Component = Component("linf", {"radius": 8 / 255})
    init_from: str | None = None
    validation: Validation = Validation()

    def build_ball(self) -> Ball:
        """Return the ball of the attack."""
        ball: Ball = self.ball.bind("ball", BALLS)()
        return ball

    def build_attack(self) -> Callable[..., Any]:
        """Return the attack of the training, with its options and its ball bound."""
        return self._bind_attack(self.attack, "attack")

    def build_validation_attack(self) -> Callable[..., Any]:
        """Return the attack of the validation.

        A network can learn to hide its gradient from an attack of a single step, so beside such a
        training `pgd` of 10 steps validates, unless the recipe names another attack.
        """
        if self.validation_attack is not None:
            return self._bind_attack(self.validation_attack, "validation_attack")
        longer = Component("pgd", {"steps": 10})
        return self._bind_attack(longer if _single_step(self.attack) else self.attack, "attack")

    @property
    def risk(self) -> str:
        """The known risk of training on attacks of a single step, ``""`` for others."""
        if self.loss.name == "natural" or not _single_step(self.attack):
            return ""
        validated = self.validation_attack
        blind = validated is not None and _single_step(validated)
        hint = ": nor does a validation attack of a single step see it, use more steps"
        return (
            "training on attacks of a single step may suddenly lose all robustness to longer ones "
            f"(catastrophic overfitting){hint if blind else ''}"
        )

    def _bind_attack(self, component: Component, key: str) -> Callable[..., Any]:
        _refuse_option(component, key, "ball", "the recipe's own key 'ball'")
        return partial(component.bind("attack", ATTACKS, ARGUMENTS), ball=self.build_ball())

    def build_loss(self) -> Callable[..., Any]:
        """Return the loss with its options and its attack bound."""
        _refuse_option(self.loss, "loss", "attack", "the recipe's own key 'attack'")
        return partial(
            self.loss.bind("loss", LOSSES, _ARGUMENTS_OF_LOSS), attack=self.build_attack()
        )

    def build_model(
        self,
        shape: tuple[int, int, int],
        classes: int,
        kind: type[Built] = NoisyModel,  # type: ignore[assignment]
        check: Callable[[nn.Module], object] = lambda skeleton: None,
    ) -> Built:
        """Return the noisy network for images of ``shape``, freshly initialised, as a ``kind``.

        Args:
            shape: (C, H, W) of an image.
            classes: K.
            kind: the class to build.
            check: called with the same network without contents, before any memory is taken;
                not where the model is code of the user's.

        Raises:
            InputError: a name or an option is unknown, or normalisation is not given.
        """
        mean, std = self.normalise.mean, self.normalise.std
        if mean is None or std is None:
            raise InputError("normalise.mean and normalise.std must be given, one per channel")
        if len(mean) != shape[0]:
            raise InputError(
                f"normalise has {len(mean)} values, but an image of shape {shape} needs {shape[0]}"
            )
        make = self.model.bind("model", MODELS, None)
        build = partial(self._build, partial(make, **self._sizes(make, shape[0], classes)))
        if ":" not in self.model.name:
            with torch.device("meta"):  # without memory first: not every size fits into a machine
                skeleton = build(Normalize(mean, std), shape, kind)
            check(skeleton)
            _check_size(skeleton, str(self.model))
        return build(Normalize(mean, std), shape, kind)

    def _build(
        self,
        make: Callable[..., Any],
        normalise: Normalize,
        shape: tuple[int, int, int],
        kind: type[Built],
    ) -> Built:
        fault = f"model {self.model} cannot be built"
        with isolated_rng(derive_seed(self.seed, "init")), running_code(fault):
            network = make()
            if not isinstance(network, nn.Module):
                raise InputError(f"model {self.model} made no torch.nn.Module but {network!r:.80}")
            return kind(
                nn.Sequential(normalise, network),
                inputs=_build_noise(self.noise.inputs),
                weights=_build_noise(self.noise.weights),
                activations=_build_noise(self.noise.activations),
                side=self.noise.side,
                shape=shape,
            )

    def _sizes(self, make: Callable[..., Any], channels: int, classes: int) -> dict[str, int]:
        """Return the sizes of the data that the factory takes and the recipe leaves open."""
        sizes = {"classes": classes, "channels": channels}
        if ":" not in self.model.name:
            return sizes
        takes = inspect.signature(make).parameters
        sizes |= {"num_classes": classes, "in_channels": channels}
        return {k: v for k, v in sizes.items() if k in takes and k not in self.model.options}

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain YAML values, which `recipe_from` reads."""
        plain: dict[str, Any] = to_plain(self)
        own = [field.name for field in dataclasses.fields(self)]
        first = ["description", "seed", "model"]
        return {name: plain[name] for name in [*first, *(n for n in own if n not in first)]}


def load_recipe(path: str | Path, overrides: Iterable[str] = (), scale: str = "short") -> Recipe:
    """Read a recipe file at a scale and apply ``key=value`` overrides (dotted keys).

    ``"short"`` is the recipe as written; ``"paper"`` has the length of the paper's training;
    ``"smoke"`` is one epoch on a few images, without a model to start from.

    Raises:
        InputError: the file is missing or malformed, a key or the scale is unknown.
    """
    content = read_settings(path, scale, SMOKE)
    return recipe_from(apply_overrides(content, overrides), str(path))


SMOKE: dict[str, Any] = {
    "epochs": 1,
    "batch_size": 16,
    "init_from": None,
    "validation": {"held_out": 64, "images": 32},
}


def recipe_from(content: Mapping[str, Any], source: str = "the recipe") -> Recipe:
    """Return the recipe written in ``content``.

    Raises:
        InputError: a key is unknown (the message lists the valid ones) or a value has the
            wrong type.

    >>> recipe_from({"epochs": 3, "attack": "pgd(steps=2)"}).attack.options
    {'steps': 2}
    """
    return from_dict(Recipe, content, source)


def _single_step(attack: Component) -> bool:
    return attack.name == "fgsm" or attack.options.get("steps") == 1


def _refuse_option(component: Component, kind: str, option: str, instead: str) -> None:
    if option in component.options:
        raise InputError(f"{kind}.{option} would be overridden: set {instead}")


def _check_size(model: nn.Module, name: str) -> None:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    check_memory(f"model {name} with its noise", needed, "give smaller sizes")


def _build_noise(plan: Component | dict[str, Component] | None) -> Any:
    if isinstance(plan, dict):
        return {pattern: _build_noise(component) for pattern, component in plan.items()}
    return None if plan is None else plan.bind("noise", NOISES)()
