"""From the words of a recipe to a network: normalisation, network, defence, noise."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import nn

from smoothinfer.config.components import Component
from smoothinfer.config.user_code import running_code
from smoothinfer.data.guards import check_memory
from smoothinfer.defences import DEFENCES
from smoothinfer.errors import InputError
from smoothinfer.networks import MODELS, Normalize
from smoothinfer.noise import NOISES, NoisyModel
from smoothinfer.numerics.randomness import derive_seed, isolated_rng
from smoothinfer.runtime.modes import count_classes

Built = TypeVar("Built", bound=NoisyModel)


@dataclass(frozen=True)
class NoisePlan:
    """Where noise enters: a component of ``NOISES`` at each place, or none.

    At weights and activations a mapping from layer patterns to components works too.

    Attributes:
        inputs: noise on the images.
        weights: noise on the weights of convolutions and linear layers.
        activations: noise on what these layers give or take.
        side: ``"output"`` or ``"input"`` of the layers that ``activations`` names.
    """

    inputs: Component | None = None
    weights: Component | dict[str, Component] | None = None
    activations: Component | dict[str, Component] | None = None
    side: str = "output"


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation, in pixel units: one per channel, or one for all; none to
    measure the data.
    """

    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise InputError("normalise needs both mean and std, or neither to measure the data")
        if self.mean is not None and len(self.mean) != len(self.std or []):
            raise InputError(f"normalise.mean {self.mean} and std {self.std} differ in length")
        if self.std is not None and not all(value > 0 for value in self.std):
            raise InputError(f"normalise.std must be positive, not {self.std}")


def nothing(network: nn.Module) -> None:
    """Leave ``network`` as it is."""


@dataclass(frozen=True)
class Building:
    """A model that is going to be built.

    Attributes:
        model: a component of ``MODELS``, or ``package.module:factory``.
        normalise: first layer of the model.
        defence: a component of ``DEFENCES`` around the network, or none.
        noise: where noise enters.
        seed: of the weights.
        shape: (C, H, W) of an image.
        classes: K.
    """

    model: Component
    normalise: Normalisation
    defence: Component | None
    noise: NoisePlan
    seed: int
    shape: tuple[int, int, int]
    classes: int

    def build(
        self,
        kind: type[Built],
        check: Callable[[nn.Module], object],
        prepare: Callable[[nn.Module], object],
    ) -> Built:
        """Return the model, see `Recipe.build_model`."""
        mean, std = self.normalise.mean, self.normalise.std
        if mean is None or std is None:
            raise InputError("normalise.mean and normalise.std must be given, one per channel")
        if len(mean) == len(std) == 1:
            mean, std = mean * self.shape[0], std * self.shape[0]
        if len(mean) != self.shape[0]:
            raise InputError(
                f"normalise has {len(mean)} values, but an image of shape {self.shape} needs "
                f"{self.shape[0]}"
            )
        make = self.model.bind("model", MODELS, None)
        make = partial(make, **self._sizes(make))
        if ":" not in self.model.name:
            with torch.device("meta"):  # without memory first: not every size fits into a machine
                skeleton = self._build(make, Normalize(mean, std), kind, nothing)
            check(skeleton)
            _check_size(skeleton, str(self.model))
        return self._build(make, Normalize(mean, std), kind, prepare)

    def _build(
        self,
        make: Callable[..., Any],
        normalise: Normalize,
        kind: type[Built],
        prepare: Callable[[nn.Module], object],
    ) -> Built:
        fault = f"model {self.model} cannot be built"
        with isolated_rng(derive_seed(self.seed, "init")), running_code(fault):
            network = make()
            if not isinstance(network, nn.Module):
                raise InputError(f"model {self.model} made no torch.nn.Module but {network!r:.80}")
            network = nn.Sequential(normalise, network)
            prepare(network)
            defended = (
                network if self.defence is None else defend(self.defence, [network], self.shape)
            )
            if isinstance(defended, NoisyModel) and self.noise == NoisePlan():
                return defended.as_kind(kind)
            return kind(
                defended,
                inputs=_build_noise(self.noise.inputs),
                weights=_build_noise(self.noise.weights),
                activations=_build_noise(self.noise.activations),
                side=self.noise.side,
                shape=self.shape,
            )

    def _sizes(self, make: Callable[..., Any]) -> dict[str, int]:
        """Return the sizes of the data that the factory takes and the recipe leaves open."""
        sizes = {"classes": self.classes, "channels": self.shape[0]}
        if ":" not in self.model.name:
            return sizes
        takes = inspect.signature(make).parameters
        sizes |= {"num_classes": self.classes, "in_channels": self.shape[0]}
        return {k: v for k, v in sizes.items() if k in takes and k not in self.model.options}


def defend(
    defence: Component, networks: Sequence[nn.Module], shape: tuple[int, int, int]
) -> nn.Module:
    """Return the defence around networks, of which all but a mixture take one.

    Args:
        defence: a component of ``DEFENCES``.
        networks: from pixels to logits.
        shape: (C, H, W) of an image, given to those that ask for it.

    Raises:
        InputError: the name or an option is unknown, or the defence does not fit the networks.
    """
    function = defence.bind("defence", DEFENCES, None)
    _check_classes(networks, shape)
    sized = "shape" in inspect.signature(function).parameters
    given = ["network"] * len(networks) + (["shape="] if sized else [])
    bound = defence.bind("defence", DEFENCES, given)
    defended: nn.Module = bound(*networks, **({"shape": shape} if sized else {}))
    return defended


def _check_classes(networks: Sequence[nn.Module], shape: tuple[int, int, int]) -> None:
    if len(networks) > 1:
        classes = [count_classes(each, torch.zeros(1, *shape)) for each in networks]
        if len(set(classes)) > 1:
            raise InputError(f"networks that answer together have {classes} classes, not the same")


def _check_size(model: nn.Module, name: str) -> None:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    check_memory(f"model {name} with its noise", needed, "give smaller sizes")


def _build_noise(plan: Component | dict[str, Component] | None) -> Any:
    if isinstance(plan, dict):
        return {pattern: _build_noise(component) for pattern, component in plan.items()}
    return None if plan is None else plan.bind("noise", NOISES)()
