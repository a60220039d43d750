"""One pass of a random network, held fixed: the same images always give the same logits.

Pass ``s`` of the ensemble ``seed`` fixes one realisation of everything random, shared by all
images, so an image's verdict depends neither on its batch nor on its place in the batch.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smoothinfer.engine.plan import Network, Plan
from smoothinfer.engine.sampler import Sampler
from smoothinfer.numerics.randomness import all_isolated, derive_seed, isolated_rng, stream
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import device_of, is_training
from smoothinfer.types import Images, Logits

_BLOCK = 16  # passes of a `SeededPasses` that are counted together


@runtime_checkable
class NoisyNetwork(Protocol):
    """What the engine needs to know of a `NoisyModel`."""

    module: nn.Module
    inputs: Any  # the noise on the images, or None
    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def plan(self) -> Plan | str: ...

    def answers_alone(self, images: Images) -> bool: ...

    def sampler_for(self, plan: Plan, dtype: torch.dtype) -> Sampler: ...

    def draw_network(self, generator: torch.Generator | None = None) -> Network: ...

    def run(
        self,
        network: Network,
        images: Images,
        generator: torch.Generator | None = None,
        shared: bool = False,
    ) -> Logits: ...


class Member(nn.Module):
    """The network of pass ``s`` of a `NoisyModel`.

    Gradients flow to the images, not to the parameters: a member is a snapshot.

    Args:
        noisy: the model whose noise is fixed.
        seed, s: the key of the pass.
        per_image: give every image its own input noise, keyed by its pixels, instead of one
            for all images of the pass.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
    >>> images = torch.rand(5, 1, 2, 2)
    >>> alone, batch = noisy.member(0, 7)(images[:1]), noisy.member(0, 7)(images)
    >>> bool((alone == batch[:1]).all())
    True
    """

    _volatile = ("_network",)  # follows from the rest

    def __init__(self, noisy: NoisyNetwork, seed: int, s: int, per_image: bool = False) -> None:
        super().__init__()
        self.noisy, self.seed, self.s, self.per_image = noisy, seed, s, per_image
        device = device_of(noisy)  # type: ignore[arg-type]
        self._network = noisy.draw_network(stream(seed, "weights", s, device=device))
        self.training = noisy.training

    def forward(self, images: Images) -> Logits:
        generator = stream(self.seed, "activations", self.s, device=images.device)
        noisy = noisy_images(self.noisy.inputs, images, self.seed, self.s, self.per_image)
        # Other randomness in the module (left-on dropout) uses the global generator only.
        with isolated_rng(derive_seed(self.seed, "module", self.s)):
            return self.noisy.run(self._network, noisy, generator, shared=True)


def noisy_images(
    noise: nn.Module | None, images: Images, seed: int, s: int, per_image: bool = False
) -> Tensor:
    """Return ``images`` under the input noise of pass ``s``: one for all, or ``per_image``."""
    if noise is None:
        return images
    key = (seed, "inputs", s)
    if not per_image:
        shared: Tensor = noise(images, stream(*key, device=images.device), shared=True)
        return shared
    pixels = (zlib.crc32(image.detach().cpu().numpy().tobytes()) for image in images)
    rows = [
        noise(image[None], stream(*key, each, device=images.device))
        for image, each in zip(images, pixels, strict=True)
    ]
    return torch.cat(rows)


def run_seeded(model: nn.Module, images: Images, seed: int) -> Logits:
    """Return the logits of one draw of any random module: all global generators get ``seed``."""
    return run_draws(model, images, [seed])[0]


def run_draws(model: nn.Module, images: Images, seeds: Sequence[int]) -> list[Logits]:
    """Return the logits of one draw for each of ``seeds``; see `run_seeded`."""
    found = []
    with all_isolated() as seed_all:
        for seed in seeds:
            seed_all(seed)
            found.append(logits_of(model, images))
    return found


class SeededModule(nn.Module):
    """Pass ``s`` of a third-party random module, seeded through the global generators.

    Numbers that such a module draws per image still depend on the image's place in its batch.
    """

    def __init__(self, module: nn.Module, seed: int, s: int) -> None:
        super().__init__()
        self.module, self.key = module, derive_seed(seed, "pass", s)
        self.training = is_training(module)

    def forward(self, images: Images) -> Logits:
        return run_seeded(self.module, images, self.key)


def member_of(model: nn.Module, seed: int, s: int, per_image: bool = False) -> nn.Module:
    """Return pass ``s`` of any random module, as a deterministic module."""
    if isinstance(model, NoisyNetwork):
        return Member(model, seed, s, per_image)
    return SeededModule(model, seed, s)


def run_passes(passes: Sequence[Callable[[Images], Logits]], images: Images) -> list[Logits]:
    """Return the logits of each of ``passes``, differentiable in the images.

    Where a gradient is wanted, memory holds one pass at a time: the backward pass runs each again,
    so a pass must give the same logits at every call.

    >>> [float(each) for each in run_passes([torch.sin, torch.cos], torch.zeros(1))]
    [0.0, 1.0]
    """
    if not (torch.is_grad_enabled() and images.requires_grad):
        return [run(images) for run in passes]
    return [
        checkpoint(run, images, use_reentrant=False, preserve_rng_state=False) for run in passes
    ]


class SeededPasses:
    """Draws of any random module, with these seeds or fresh ones, as passes for `count_votes`."""

    by_place = True

    def __init__(self, model: nn.Module, seeds: Sequence[int] | None = None) -> None:
        self.model, self.seeds = model, seeds

    def blocks(self, images: Images, first: int, samples: int) -> Iterator[Tensor]:
        """Yield the logits (S, N, K) of passes ``first`` to ``first + samples - 1``."""
        for begin in range(first, first + samples, _BLOCK):
            passes = range(begin, min(begin + _BLOCK, first + samples))
            if self.seeds is None:
                yield torch.stack([logits_of(self.model, images) for _ in passes])
            else:
                yield torch.stack(run_draws(self.model, images, self.seeds[begin : passes.stop]))
