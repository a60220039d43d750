"""A random model held still, for attacks that know no randomness and see one batch only."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smoothinfer.attacks.eot import seeded
from smoothinfer.attacks.pooling import log_mean_probability
from smoothinfer.numerics.randomness import derive_seed
from smoothinfer.types import Images, Scores


class Frozen(nn.Module):
    """log mean probability over the same ``samples`` draws at every call: deterministic.

    Noise drawn for each image depends on its place in the batch: for an attack that keeps its batch
    together. Where batches change, smoothing's `frozen` shares the draws between images instead.

    Args:
        model: any module from images to logits, random through the global generator.
        seed: names the draws.
        samples: how many; memory holds one at a time.

    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
    >>> still, images = Frozen(net, seed=0, samples=4), torch.rand(3, 1, 2, 2)
    >>> bool((still(images) == still(images)).all())
    True
    """

    def __init__(self, model: nn.Module, seed: int = 0, samples: int = 1) -> None:
        super().__init__()
        self.model, self.seed, self.samples = model, seed, samples
        self.training = model.training

    def forward(self, images: Images) -> Scores:
        """Return scores (N, K) on a log scale, differentiable."""
        draws = [self._draw(images, s) for s in range(self.samples)]
        return log_mean_probability(torch.stack(draws))

    def _draw(self, images: Images, s: int) -> Tensor:
        seed = derive_seed(self.seed, "frozen", s)
        if not (torch.is_grad_enabled() and images.requires_grad):
            return seeded(self.model, images, seed)
        # The seed alone decides the draw, so that running it again is safe.
        again: Tensor = checkpoint(
            lambda points: seeded(self.model, points, seed),
            images,
            use_reentrant=False,
            preserve_rng_state=False,
        )
        return again
