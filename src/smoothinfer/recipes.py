"""Recipes: a frozen dataclass filled from YAML and ``--set key=value``, and the model it builds."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.attacks import ARGUMENTS, ATTACKS
from smoothinfer.building import Building, Built, NoisePlan, Normalisation, nothing
from smoothinfer.config.components import Component
from smoothinfer.config.settings_files import apply_overrides, read_settings
from smoothinfer.config.typed import from_dict, to_plain
from smoothinfer.errors import InputError, unknown
from smoothinfer.noise import NoisyModel
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.shipped_files import recipe_path
from smoothinfer.training.losses import LOSSES
from smoothinfer.training.options import TrainingOptions

_ARGUMENTS_OF_LOSS = ("model", "images", "labels", "attack=")


@dataclass(frozen=True)
class Validation:
    """Images held out from the training set, on which each epoch is measured.

    Attributes:
        held_out: how many; by default a tenth of the training set, at most 5,000, or as many as
            the network that this training starts from held out of the same images.
        images: how many of these an epoch is measured on, some of each class.
        first: take the first ones instead, for data in random order.
        score: what the best epoch is best at: ``"attacked"`` or ``"clean"``; ``"last"`` keeps the
            last epoch, for aims that neither measures.
    """

    held_out: int | None = None
    images: int = 1000
    first: bool = False
    score: str = "attacked"

    def __post_init__(self) -> None:
        if self.score not in ("attacked", "clean", "last"):
            raise unknown("validation.score", self.score, ("attacked", "clean", "last"))
        for name in ("held_out", "images"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"validation.{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class Recipe(TrainingOptions):
    """Everything that decides the result of a training, except the data.

    The options of the loop are those of `TrainingOptions`.

    Attributes:
        description: for the reader.
        model: a component of ``MODELS``, or ``package.module:factory``.
        normalise: first layer of the model.
        defence: a component of ``DEFENCES`` around the network, or none.
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
    normalise: Normalisation = field(default_factory=Normalisation)
    defence: Component | None = None
    noise: NoisePlan = field(default_factory=NoisePlan)
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
        """Return the attack of the validation, with its options and its ball bound."""
        key = "attack" if self.validation_attack is None else "validation_attack"
        return self._bind_attack(self.measured_by, key)

    @property
    def measured_by(self) -> Component:
        """The attack of the validation.

        A network can learn to hide its gradient from an attack of a single step, so beside such a
        training `pgd` of 10 steps validates, unless the recipe names another attack.
        """
        if self.validation_attack is not None:
            return self.validation_attack
        return Component("pgd", {"steps": 10}) if _single_step(self.attack) else self.attack

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
        check: Callable[[nn.Module], object] = nothing,
        prepare: Callable[[nn.Module], object] = nothing,
    ) -> Built:
        """Return the noisy network for images of ``shape``, freshly initialised, as a ``kind``.

        Args:
            shape: (C, H, W) of an image.
            classes: K.
            kind: the class to build.
            check: called with the same network without contents, before any memory is taken;
                not where the model is code of the user's.
            prepare: called with normalisation and network, before defence and noise are added.

        Raises:
            InputError: a name or an option is unknown, or normalisation is not given.
        """
        parts = self.model, self.normalise, self.defence, self.noise
        return Building(*parts, self.seed, shape, classes).build(kind, check, prepare)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain YAML values, which `recipe_from` reads."""
        plain: dict[str, Any] = to_plain(self)
        own = [field.name for field in dataclasses.fields(self)]
        first = ["description", "seed", "model"]
        return {name: plain[name] for name in [*first, *(n for n in own if n not in first)]}


def load_recipe(path: str | Path, overrides: Iterable[str] = (), scale: str = "short") -> Recipe:
    """Read a recipe, and apply ``key=value`` overrides (dotted keys).

    ``path`` is a file, or the name of a recipe that comes with the package.

    ``"short"`` is the recipe as written; ``"paper"`` has the length of the paper's training;
    ``"smoke"`` is one epoch on a few images, without a model to start from.

    Raises:
        InputError: the file is missing or malformed, a key or the scale is unknown.
    """
    content = read_settings(recipe_path(path), scale, SMOKE)
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
