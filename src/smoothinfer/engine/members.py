"""Members: one pass of a random network, made deterministic.

A pass ``s`` of the ensemble ``seed`` fixes one realisation of everything random, shared by all
images, so an image's verdict depends neither on its batch nor on its place in it.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from smoothinfer.numerics.randomness import all_isolated, derive_seed, isolated_rng, stream
from smoothinfer.types import Images, Logits

if TYPE_CHECKING:
    from smoothinfer.noise.base import Noise
    from smoothinfer.noise.noisy_model import NoisyModel


class Member(nn.Module):
    """The network of pass ``s``: the same images always give the same logits.

    Gradients flow to the images, not to the parameters: a member is a snapshot.

    Args:
        noisy: the model whose noise is fixed.
        seed, s: the key of the pass.
        per_image: give every image its own input noise, keyed by its pixels, instead of one
            for all images of the pass.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
    >>> image = torch.rand(5, 1, 2, 2)
    >>> alone, together = noisy.member(0, 7)(image[:1]), noisy.member(0, 7)(image)
    >>> bool((alone == together[:1]).all())
    True
    """

    def __init__(self, noisy: NoisyModel, seed: int, s: int, per_image: bool = False) -> None:
        super().__init__()
        self.noisy, self.seed, self.s, self.per_image = noisy, seed, s, per_image
        device = next((p.device for p in noisy.parameters()), torch.device("cpu"))
        self._network = noisy.realise(stream(seed, "weights", s, device=device))
        self.training = noisy.training

    def forward(self, images: Images) -> Logits:
        generator = stream(self.seed, "activations", self.s, device=images.device)
        noisy = disturbed(self.noisy.inputs, images, self.seed, self.s, self.per_image)
        # Whatever else is random in the module (left-on dropout) knows the global generator only.
        with isolated_rng(derive_seed(self.seed, "module", self.s)):
            return self.noisy.run(self._network, noisy, generator, shared=True)


def disturbed(
    noise: Noise | None, images: Images, seed: int, s: int, per_image: bool = False
) -> Tensor:
    """Return ``images`` under the input noise of pass ``s``: one for all, or ``per_image``."""
    if noise is None:
        return images
    key = (seed, "inputs", s)
    if not per_image:
        return noise(images, stream(*key, device=images.device), shared=True)
    each = (zlib.crc32(image.detach().cpu().numpy().tobytes()) for image in images)
    rows = [
        noise(image[None], stream(*key, pixels, device=images.device))
        for image, pixels in zip(images, each, strict=True)
    ]
    return torch.cat(rows)


class SeededModule(nn.Module):
    """Pass ``s`` of somebody else's random module, seeded through the global generators.

    What such a module draws per image still depends on the image's place in its batch.
    """

    def __init__(self, module: nn.Module, seed: int, s: int) -> None:
        super().__init__()
        self.module, self.key = module, derive_seed(seed, "pass", s)
        self.training = module.training

    def forward(self, images: Images) -> Logits:
        with all_isolated(self.key):
            return self.module(images)


def member_of(model: nn.Module, seed: int, s: int, per_image: bool = False) -> nn.Module:
    """Return pass ``s`` of any random module: its own `member` where it has one."""
    if hasattr(model, "member"):
        return model.member(seed, s, per_image)  # type: ignore[operator]
    return SeededModule(model, seed, s)
