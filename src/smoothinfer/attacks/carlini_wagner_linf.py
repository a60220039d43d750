"""Carlini and Wagner's attack in L-infinity: a box shrinks while it holds an adversarial image."""

import torch
from torch import Tensor, nn

from smoothinfer.attacks.losses import margin
from smoothinfer.numerics.balls import per_image, pick_images
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Labels

_SHRINK = 0.9
_GROW, _LARGEST = 10.0, 20.0  # of the constant c


def carlini_linf(
    model: nn.Module,
    images: Images,
    labels: Labels,
    radius: float,
    *,
    steps: int,
    searches: int,
    rate: float,
    confidence: float,
    initial: float,
) -> Images:
    """Return the nearest images found (L-infinity) that a model without noise gets wrong.

    Adam minimises c max(z_y - max_j z_j + kappa, 0) + sum_i max(|delta_i| / tau - 1, 0), over
    delta / tau, so that one rate fits every box. After a search that succeeded, tau becomes 0.9
    of the distance reached; after one that failed, c grows tenfold up to 20.

    Args:
        model: a module from images to logits, without randomness.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,).
        radius: first tau, in pixel units.
        steps, searches: Adam steps of a search, and searches.
        rate: of Adam, in units of tau.
        confidence: kappa.
        initial: c at first.

    Source: Carlini, Wagner 2017, arXiv 1608.04644, section VI.C.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> images, labels = torch.full((1, 1, 2, 2), 0.5), torch.tensor([0])
    >>> settings = {"steps": 5, "searches": 2, "rate": 0.1, "confidence": 0.0, "initial": 1e-3}
    >>> carlini_linf(net, images, labels, 0.1, **settings).shape
    torch.Size([1, 1, 2, 2])
    """
    tau = per_image(images.new_full((len(images),), radius), images)
    weight = images.new_full((len(images),), initial)
    best, nearest = images.clone(), images.new_full((len(images),), torch.inf)
    for _ in range(searches):
        search = _Search(images, best, tau, rate)
        before = nearest
        for _ in range(steps):
            points = search.points
            with torch.enable_grad():
                lead = margin(logits_of(model, points), labels)
                loss = weight * (confidence - lead).relu() + search.outside
                (gradient,) = torch.autograd.grad(loss.sum(), search.share)
            distance = (points - images).detach().abs().flatten(1).amax(1)
            closer = (lead.detach() > confidence) & (distance < nearest)
            best = pick_images(closer, points.detach(), best)
            nearest = torch.where(closer, distance, nearest)
            search.step(gradient)
        gained = nearest < before
        box = torch.where(gained, torch.minimum(tau.flatten(), nearest), tau.flatten())
        tau = per_image(torch.where(gained, _SHRINK * box, box), images)
        weight = torch.where(gained, weight, (_GROW * weight).clamp(max=_LARGEST))
    return best


class _Search:
    """Adam over delta / tau, kept within the range of pixels."""

    def __init__(self, images: Images, begin: Images, tau: Tensor, rate: float) -> None:
        self.images, self.tau = images, tau.clamp(min=1e-6)
        self.share = ((begin - images) / self.tau).requires_grad_()
        self.adam = torch.optim.Adam([self.share], lr=rate)

    @property
    def points(self) -> Images:
        return (self.images + self.tau * self.share).clamp(0, 1)

    @property
    def outside(self) -> Tensor:
        return (self.share.abs() - 1).relu().flatten(1).sum(1)

    def step(self, gradient: Tensor) -> None:
        self.share.grad = gradient
        self.adam.step()
        with torch.no_grad():  # a pixel beyond its range would have no gradient to come back
            self.share.copy_((self.points - self.images) / self.tau)
