"""`NoisyModel`: noise at the inputs, weights and activations of any module."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from smoothinfer.errors import InputError, check_kind, unknown
from smoothinfer.networks import Normalize
from smoothinfer.runtime.modes import is_recorded
from smoothinfer.noise.additive import Additive
from smoothinfer.noise.base import Noise
from smoothinfer.engine.members import Member
from smoothinfer.noise.placement import (
    SIDES,
    Where,
    activation_shapes,
    assigned,
    on_activations,
    own_weight,
)
from smoothinfer.engine.plan import Network, Plan
from smoothinfer.engine.sampler import Sampler, noisy_weights
from smoothinfer.engine.sampler_cache import Samplers
from smoothinfer.noise.strengths import strengths_of
from smoothinfer.engine.tracing import PlanError, tensors_of
from smoothinfer.numerics.precision import autocast_dtype
from smoothinfer.types import Images, Logits

# How the names of learned noise begin in a state_dict.
NOISE_PARTS = ("weight_noises.", "activation_noises.", "inputs.")


class NoisyModel(nn.Module):
    """A network under noise: logits of ``module`` with its inputs, weights, activations disturbed.

    Noise is drawn afresh at every call, in training and in eval mode alike. The wrapped module
    is used as it is, not copied; learned noise becomes ordinary parameters of this one. Weight
    and activation noise goes to convolutions and linear layers; what other layers own (biases,
    normalisation, embeddings, the joint input projection of attention) stays clean.

    Args:
        module: any module from (N, C, H, W) pixels in [0, 1] to (N, K) logits.
        inputs: noise on the images.
        weights: noise on the weights of convolutions and linear layers; or a mapping from a
            pattern of layer names (``"stages.*.conv1"``) to a noise, the first match counts.
        activations: the same for what these layers put out (or take in).
        side: ``"output"`` or ``"input"`` of the layers that ``activations`` names.
        shape: (C, H, W) of an image; needed only to size noise at inputs and activations.

    Raises:
        InputError: something is not a noise, a pattern matches no layer, no layer can carry
            noise, a layer computes its weight (``weight_norm``) or never runs, or noise in
            normalised units meets a module without a `Normalize` layer.

    Source: Nemcovsky et al. 2019, arXiv 1911.07198, section 3.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> from smoothinfer.noise import CNI, Gaussian
    >>> noisy = NoisyModel(net, inputs=Gaussian(0.1), weights=CNI(rank=1)).eval()
    >>> image = torch.rand(1, 1, 2, 2)
    >>> bool((noisy(image) == noisy(image)).all())
    False
    >>> member = noisy.member(seed=0, s=3)
    >>> bool((member(image) == member(image)).all())
    True
    """

    def __init__(
        self,
        module: nn.Module,
        inputs: Noise | None = None,
        weights: Where = None,
        activations: Where = None,
        *,
        side: str = "output",
        shape: tuple[int, int, int] | None = None,
    ) -> None:
        super().__init__()
        if side not in SIDES:
            raise unknown("side", side, SIDES)
        check_kind("module", module, nn.Module, "NoisyModel(network, inputs=Gaussian(0.06))")
        self.module, self.side, self.shape = module, side, shape
        self._plan: Plan | str | None = None  # or why there is none
        self._samplers = Samplers()
        self.inputs: Noise | None = self._fit_inputs(inputs)
        self.weight_noises = nn.ModuleDict()
        self._weight_keys: dict[str, str] = {}  # a ModuleDict's keys may hold no dots
        tied: set[int] = set()  # a weight of two layers is one weight, with one noise
        for name, noise in assigned(module, weights, "weights").items():
            layer = module.get_submodule(name)
            key = f"{name}.weight".lstrip(".")
            weight = own_weight(layer, name)
            if id(weight) in tied:
                continue
            tied.add(id(weight))
            self._weight_keys[key] = key.replace(".", "-")
            self.weight_noises[self._weight_keys[key]] = noise.fit(weight.shape, "weights", layer)
        self.activation_noises = nn.ModuleDict()
        self._activation_layers: dict[str, str] = {}
        if activations is not None:
            self._fit_activations(assigned(module, activations, "activations"))
        self.training = module.training
        like = next(module.parameters(), torch.zeros(()))
        for part in (self.inputs, self.weight_noises, self.activation_noises):
            if part is not None:
                part.train(module.training).to(like)

    def _fit_inputs(self, noise: Noise | None) -> Noise | None:
        if noise is None:
            return None
        check_kind("inputs", noise, Noise, "inputs=Gaussian(0.06)")
        fitted = noise.fit(torch.Size((1, *(self.shape or (1, 1, 1)))), "inputs")
        if any(p.ndim > 1 for p in fitted.parameters()) and self.shape is None:
            raise InputError("this input noise has a parameter per entry: give shape=(C, H, W)")
        if isinstance(fitted, Additive) and fitted.units == "normalised":
            layers = [part for part in self.module.modules() if isinstance(part, Normalize)]
            if not layers:
                raise InputError(
                    "noise in normalised units needs a smoothinfer.Normalize layer in the "
                    "module; add one or use units='pixel'"
                )
            fitted.in_units_of(layers[0].std)
        return fitted

    def _fit_activations(self, noises: dict[str, Noise]) -> None:
        if self.shape is None:
            raise InputError("activation noise needs the image's shape=(C, H, W) to size itself")
        shapes = activation_shapes(self.module, noises, self.shape, self.side)
        for name, noise in noises.items():
            if name not in shapes:
                raise InputError(f"layer {name!r} never runs in a forward: it has no activations")
            key = name.replace(".", "-")
            self._activation_layers[name] = key
            layer = self.module.get_submodule(name)
            self.activation_noises[key] = noise.fit(shapes[name], "activations", layer)

    def noisy_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Draw every noisy weight once, differentiably: ``{parameter of module: noisy tensor}``."""
        weights = {name: self.module.get_parameter(name) for name in self._weight_keys}
        return noisy_weights(weights, self.noise_of_weights(), generator)

    def noise_of_weights(self) -> dict[str, Noise]:
        """Return the noise of each noisy weight, by the weight's name in ``module``."""
        return {name: self.weight_noises[key] for name, key in self._weight_keys.items()}  # type: ignore[misc]

    def noise_of_activations(self) -> dict[str, nn.Module]:
        """Return the noise of each layer's activations, by the layer's name in ``module``."""
        return {name: self.activation_noises[key] for name, key in self._activation_layers.items()}

    def forward(self, images: Images, generator: torch.Generator | None = None) -> Logits:
        """Return logits (N, K) under fresh noise.

        Args:
            images: (N, C, H, W), pixels in [0, 1] (not checked here: an attack may step out).
            generator: source of the noise; the global generator by default.
        """
        noisy = images if self.inputs is None else self.inputs(images, generator)
        if self._draws_snapshots():
            network = self.realise(generator)
        else:
            network = partial(functional_call, self.module, self.noisy_weights(generator))
        return self.run(network, noisy, generator)

    def _draws_snapshots(self) -> bool:
        """Say whether this pass needs no gradient of parameters, nor moves batch statistics."""
        if is_recorded():
            return False
        if self._samplers.known_to_hold:
            return True
        if any(part.training for part in self.module.modules()):
            return False
        return not torch.is_grad_enabled() or not any(p.requires_grad for p in self.parameters())

    @contextlib.contextmanager
    def layers_held(self) -> Iterator[None]:
        """Inside, layers and modes stay as they are: a pass looks for changed weights alone."""
        with self._samplers.held():
            yield

    def realise(self, generator: torch.Generator | None = None) -> Network:
        """Draw the weights of one pass; return the network that has them, a snapshot."""
        sampler = self.sampler()
        if sampler.plan is not None:
            return partial(_planned, sampler.plan, sampler.dtype, sampler.draw(generator))
        return partial(functional_call, self.module, sampler.draw_weights(generator))

    def sampler(self) -> Sampler:
        """Return the sampler of the weights as they are now, made anew when one has changed."""
        device = next((p.device for p in self.parameters()), torch.device("cpu"))
        return self._samplers.get(autocast_dtype(device.type), self._what_counts, self.make_sampler)

    def _what_counts(self, dtype: torch.dtype) -> tuple[Plan | None, torch.dtype, list[Tensor]]:
        """Return what a sampler for ``dtype`` is made from: plan, format, tensors."""
        plan = self.plan()
        trusted = plan if isinstance(plan, Plan) and plan.trusted else None
        if trusted is not None and trusted.not_short:
            dtype = torch.float32
        return trusted, dtype, [*self.parameters(), *self.buffers()]

    def make_sampler(self, plan: Plan | None, dtype: torch.dtype = torch.float32) -> Sampler:
        """Return a sampler of the weights as they are now, for a network run by ``plan``."""
        return Sampler(tensors_of(self.module), self.noise_of_weights(), plan, dtype)

    def plan(self) -> Plan | str:
        """Return the plan that runs the module fast, or why there is none."""
        if self._activation_layers:
            return "noise on activations is put in by hooks"
        if not isinstance(self._plan, Plan) or not self._plan.fits(self.module):
            try:
                self._plan = Plan(self.module)
            except PlanError as error:
                self._plan = str(error)
        return self._plan

    def run(
        self,
        network: Network,
        images: Images,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> Logits:
        """Run ``network``, which is this model's own, with noise on its activations."""

        def disturb(noise: nn.Module) -> Callable[[Tensor], Tensor]:
            return lambda clean: noise(clean, generator, shared)

        changes = {name: disturb(noise) for name, noise in self.noise_of_activations().items()}
        with on_activations(self.module, changes, self.side):
            return network(images)

    def member(self, seed: int, s: int, per_image: bool = False) -> nn.Module:
        """Return pass ``s`` of the ensemble ``seed``: a deterministic network (see `Member`)."""
        return Member(self, seed, s, per_image)

    def with_inputs(self, inputs: Noise | None) -> Self:
        """Return a model that shares everything with this one but its input noise."""
        twin = copy.copy(self)  # by __getstate__: with samplers of its own
        twin._modules = dict(self._modules)
        twin.inputs = twin._fit_inputs(inputs)
        return twin

    def __getstate__(self) -> dict[str, object]:
        # What was traced is made again where it is needed: traces cannot be pickled.
        return self.__dict__ | {"_plan": None, "_samplers": Samplers()}

    def extra_repr(self) -> str:
        """Say which weights and activations carry noise: their noises' names alone do not."""
        layers = ", ".join(self._activation_layers)
        return f"activations at the {self.side} of: {layers}" if layers else ""

    def strengths(self, images: Images | None = None) -> dict[str, float]:
        """Return each learned noise, relative to the standard deviation of what it disturbs.

        Args:
            images: (N, C, H, W), to also tell the noise of ``"inputs"`` and of the activations of
                each layer, as strong as it is on them.
        """
        return strengths_of(self, images)


def _planned(plan: Plan, dtype: torch.dtype, tensors: dict[str, Tensor], images: Images) -> Logits:
    """Run ``plan``: its weights are in ``dtype`` already, so autocast has nothing to do."""
    if dtype == torch.bfloat16 and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)  # what its kernels take
    with torch.autocast(images.device.type, enabled=False):
        return plan.run_in(dtype, tensors, images)
