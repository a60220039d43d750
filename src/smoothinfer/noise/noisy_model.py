"""`NoisyModel`: noise at the inputs, weights and activations of any module."""

import contextlib
import copy
from collections.abc import Callable
from functools import partial
from typing import Self, TypeVar, cast

import torch
from torch import Tensor, nn

from smoothinfer.engine.members import Member
from smoothinfer.engine.plan import Network, Plan
from smoothinfer.engine.sampler import Sampler, noisy_weights
from smoothinfer.engine.sampler_cache import Ingredients, SamplerCache
from smoothinfer.engine.tracing import settings_of, tensors_of
from smoothinfer.errors import InputError, check_type, unknown
from smoothinfer.networks import Normalize
from smoothinfer.noise.additive import Additive
from smoothinfer.noise.base import Noise
from smoothinfer.noise.placement import (
    SIDES,
    Where,
    activation_shapes,
    assign,
    on_activations,
    own_weight,
)
from smoothinfer.noise.strengths import Disturbed, activations_of, strengths_of
from smoothinfer.numerics.precision import autocast_dtype
from smoothinfer.runtime.foreign import logits_of, plain_module
from smoothinfer.runtime.modes import device_of, is_training, layers_of
from smoothinfer.types import Images, Logits

Kind = TypeVar("Kind", bound="NoisyModel")
# The first parts of the names of learned noise in a state_dict.
NOISE_PARTS = ("weight_noises.", "activation_noises.", "inputs.")


class NoisyModel(nn.Module):
    """A network under noise: logits of ``module`` with its inputs, weights, activations disturbed.

    Noise is drawn afresh at every call, in training and in eval mode alike. The wrapped module
    is used as it is, not copied; learned noise becomes ordinary parameters of this one. Weight
    and activation noise goes to convolutions and linear layers; the tensors of other layers
    (biases, normalisation, embeddings, the joint input projection of attention) stay clean, but
    for activations of layers that are named exactly.

    Args:
        module: any module from (N, C, H, W) pixels in [0, 1] to (N, K) logits.
        inputs: noise on the images.
        weights: noise on the weights of convolutions and linear layers; or a mapping from a
            pattern of layer names (``"stages.*.conv1"``) to a noise, of which the first match
            counts.
        activations: the same for the outputs (or inputs) of these layers.
        side: ``"output"`` or ``"input"`` of the layers that ``activations`` names.
        shape: (C, H, W) of an image; needed only to size noise at inputs and activations.

    Raises:
        InputError: an argument is not a noise, a pattern matches no layer, no layer can carry
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

    _volatile = ("_cache", "class_names")  # two models are alike without them
    class_names: tuple[str, ...] | None = None  # of a trained one

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
        check_type("module", module, nn.Module, "NoisyModel(network, inputs=Gaussian(0.06))")
        module = plain_module(module)
        self.module, self.side, self.shape = module, side, shape
        self._cache = SamplerCache()
        self.inputs: Noise | None = self._fit_inputs(inputs)
        self.weight_noises = nn.ModuleDict()
        self._weight_keys: dict[str, str] = {}  # a ModuleDict's keys may hold no dots
        self._fit_weights(assign(module, weights, "weights"))
        self.activation_noises = nn.ModuleDict()
        self._activation_layers: dict[str, str] = {}
        if activations is not None:
            self._fit_activations(assign(module, activations, "activations"))
        self.training = is_training(module)
        like = next(module.parameters(), torch.zeros(()))
        for part in (self.inputs, self.weight_noises, self.activation_noises):
            if part is not None:
                part.train(self.training).to(like)

    def _fit_inputs(self, noise: Noise | None) -> Noise | None:
        if noise is None:
            return None
        check_type("inputs", noise, Noise, "inputs=Gaussian(0.06)")
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

    def _fit_weights(self, noises: dict[str, Noise]) -> None:
        tied: set[int] = set()  # a weight that two layers share is one weight, with one noise
        for name, noise in noises.items():
            layer = self.module.get_submodule(name)
            key = f"{name}.weight".lstrip(".")
            weight = own_weight(layer, name)
            if id(weight) in tied:
                continue
            tied.add(id(weight))
            self._weight_keys[key] = key.replace(".", "-")
            self.weight_noises[self._weight_keys[key]] = noise.fit(weight.shape, "weights", layer)

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

    def noise_of_activations(self) -> dict[str, Noise]:
        """Return the noise of each layer's activations, by the layer's name in ``module``."""
        return {n: self.activation_noises[key] for n, key in self._activation_layers.items()}  # type: ignore[misc]

    def forward(self, images: Images, generator: torch.Generator | None = None) -> Logits:
        """Return logits (N, K) under fresh noise.

        Args:
            images: (N, C, H, W), pixels in [0, 1] (not checked here: an attack may step out).
            generator: source of the noise; the global generator by default.
        """
        noisy = images if self.inputs is None else self.inputs(images, generator)
        if self._may_use_snapshot():
            network = self.draw_network(generator)
        else:
            network = partial(logits_of, self.module, weights=self.noisy_weights(generator))
        return self.run(network, noisy, generator)

    def _may_use_snapshot(self) -> bool:
        """Say whether this pass needs no gradient of parameters and updates no batch statistics."""
        if torch.compiler.is_compiling():
            return False
        if self._cache.layers_known:
            return True
        if any(is_training(part) for part in self.module.modules()):
            return False
        return not torch.is_grad_enabled() or not any(p.requires_grad for p in self.parameters())

    def hold_layers(self) -> contextlib.AbstractContextManager[None]:
        """Inside, layers and modes do not change: a pass checks the weights alone."""
        return self._cache.hold()

    def draw_network(self, generator: torch.Generator | None = None) -> Network:
        """Draw the weights of one pass; return the network that has them, a snapshot."""
        dtype = autocast_dtype(device_of(self).type)
        sampler = self._cache.get(dtype, partial(self._ingredients, dtype), self._make_sampler)
        if sampler.plan is not None:
            return partial(sampler.plan.run_in, sampler.dtype, sampler.draw(generator))
        return partial(logits_of, self.module, weights=sampler.draw_weights(generator))

    def _ingredients(self, dtype: torch.dtype) -> Ingredients:
        """Return the ingredients of a sampler for a forward pass in ``dtype``."""
        plan = self.plan()
        trusted = plan if isinstance(plan, Plan) and plan.trusted else None
        if trusted is not None and trusted.no_bf16:
            dtype = torch.float32
        return trusted, dtype, self._tensors(), settings_of(self.weight_noises)

    def sampler_for(self, plan: Plan, dtype: torch.dtype) -> Sampler:
        """Return the sampler of the current weights, for the engine's passes by ``plan``."""
        key = ("engine", dtype)
        made_from = plan, dtype, self._tensors(), settings_of(self.weight_noises)
        return self._cache.get(key, lambda: made_from, self._make_sampler, check_contents=True)

    def _make_sampler(self, plan: Plan | None, dtype: torch.dtype) -> Sampler:
        return Sampler(tensors_of(self.module), self.noise_of_weights(), plan, dtype)

    def _tensors(self) -> list[Tensor]:
        held = (each for part in layers_of(self) for each in (part._parameters, part._buffers))
        found = {id(t): t for each in held for t in each.values() if t is not None}
        return list(found.values())

    def plan(self) -> Plan | str:
        """Return the plan that runs the module fast, or why there is none."""
        if self._activation_layers:
            return "noise on activations is added by hooks"
        return self._cache.plan(self.module)

    def answers_alone(self, images: Images) -> bool:
        """Say whether passes on ``images`` may run as one batch of the module: they differ by the
        noise of the inputs alone, and no image's answer depends on the others.
        """
        inside = len(self.weight_noises) or len(self.activation_noises)
        return not inside and self._cache.answers_alone(self.module, images)

    def compile_plans(self) -> bool:
        """From now on run plans through `torch.compile`; say whether there is one."""
        self._cache.compiled = True
        return isinstance(self.plan(), Plan)

    def run(
        self,
        network: Network,
        images: Images,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> Logits:
        """Run ``network``, a drawn network of this model, with noise on its activations."""

        def disturb(noise: Noise) -> Callable[[Tensor], Tensor]:
            return lambda clean: noise(clean, generator, shared)

        changes = {name: disturb(noise) for name, noise in self.noise_of_activations().items()}
        with on_activations(self.module, changes, self.side):
            return network(images)

    def member(self, seed: int, s: int, per_image: bool = False) -> Member:
        """Return pass ``s`` of the ensemble ``seed``: a deterministic network (see `Member`)."""
        return Member(self, seed, s, per_image)

    def with_inputs(self, inputs: Noise | None) -> Self:
        """Return a model that shares everything with this one except its input noise."""
        twin = copy.copy(self)  # __getstate__ gives it a cache of its own
        twin._modules = dict(self._modules)
        twin.inputs = twin._fit_inputs(inputs)
        return twin

    def as_kind(self, kind: type[Kind]) -> Kind:
        """Return the same model as one of the subclass ``kind``."""
        twin = copy.copy(self)
        twin.__class__ = kind
        return cast(Kind, twin)

    def __getstate__(self) -> dict[str, object]:
        # Traces cannot be pickled; they are made again where they are needed.
        return self.__dict__ | {"_cache": SamplerCache()}

    def extra_repr(self) -> str:
        """Name the layers whose activations carry noise."""
        layers = ", ".join(self._activation_layers)
        return f"activations at the {self.side} of: {layers}" if layers else ""

    def strengths(self, images: Images | None = None) -> dict[str, float]:
        """Return each learned noise, relative to the standard deviation of the disturbed tensor.

        Args:
            images: (N, C, H, W), to also measure the noise of ``"inputs"`` and of the activations
                of each layer on them.
        """
        noises = self.noise_of_weights().items()
        disturbed: Disturbed = {
            name: (noise, self.module.get_parameter(name)) for name, noise in noises
        }
        if images is not None:
            if self.inputs is not None:
                disturbed["inputs"] = (self.inputs, images)
            noisy = self.noise_of_activations()
            disturbed |= activations_of(self.module, noisy, self.side, images)
        return strengths_of(disturbed)
