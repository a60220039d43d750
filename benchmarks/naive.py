"""The naive way, written again from the papers: one noisy pass at a time, eager, in fp32."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NoisyConv(nn.Conv2d):
    """A convolution that draws CNI weight noise in each forward, as layers of the field do."""

    def __init__(self, clean: nn.Conv2d, rank: int = 5) -> None:
        super().__init__(
            clean.in_channels,
            clean.out_channels,
            clean.kernel_size,  # type: ignore[arg-type]
            clean.stride,  # type: ignore[arg-type]
            clean.padding,  # type: ignore[arg-type]
            bias=False,
        )
        self.weight = clean.weight
        self.diagonal = nn.Parameter(torch.full_like(clean.weight, 0.0625))
        self.factor = nn.Parameter(torch.full((clean.weight.numel(), rank), 0.01))

    def forward(self, input: Tensor) -> Tensor:
        white = (self.weight.std() * self.diagonal).abs().sqrt() * torch.randn_like(self.weight)
        draw = torch.randn(self.factor.shape[1], device=input.device)
        noise = white + (self.factor @ draw).view_as(self.weight)
        return F.conv2d(input, self.weight + noise, None, self.stride, self.padding)


def with_weight_noise(module: nn.Module) -> nn.Module:
    """Return ``module`` with every convolution noisy, in place."""
    for name, part in list(module.named_children()):
        if isinstance(part, nn.Conv2d):
            setattr(module, name, NoisyConv(part))
        else:
            with_weight_noise(part)
    return module


@torch.no_grad()
def predict(module: nn.Module, images: Tensor, samples: int, sigma: float, batch: int) -> Tensor:
    """Return votes (N, K): Monte-Carlo prediction with noise for each image and pass."""
    votes = []
    for part in images.split(batch):
        counts = torch.zeros(len(part), 10, device=images.device)
        for _ in range(samples):
            noisy = part + sigma * torch.randn_like(part) if sigma else part
            counts += F.one_hot(module(noisy).argmax(1), 10)
        votes.append(counts)
    return torch.cat(votes)


@torch.no_grad()
def predict_each(module: nn.Module, images: Tensor, samples: int, sigma: float) -> Tensor:
    """Return votes (N, K) image by image with ``samples`` copies as the batch, as Cohen et al."""
    votes = []
    for image in images:
        batch = image.expand(samples, *image.shape)
        labels = module(batch + sigma * torch.randn_like(batch)).argmax(1)
        votes.append(labels.bincount(minlength=10))
    return torch.stack(votes)


def pgd(module: nn.Module, images: Tensor, labels: Tensor, radius: float, steps: int) -> Tensor:
    """PGD with gradients of everything, as a first attempt writes it."""
    points = (images + radius * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
    for _ in range(steps):
        points = points.detach().requires_grad_()
        F.cross_entropy(module(points), labels).backward()
        assert points.grad is not None
        step = points + radius / 4 * points.grad.sign()
        points = torch.min(torch.max(step, images - radius), images + radius).clamp(0, 1)
    return points.detach()
