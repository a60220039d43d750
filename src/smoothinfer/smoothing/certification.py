"""Certificates: a radius within which no attack can change the vote, except with probability alpha.

Under Gaussian noise of sigma on the pixels, let p be the share of passes that choose a class.
Moving the image by r in L2 leaves at least Phi(Phi^-1(p) - r / sigma) of them. So the class keeps
its majority within R = sigma Phi^-1(p). The bound also holds for the average over any further
noise (weights, activations) that does not depend on the image.

The mathematics is about real numbers: with floats an attacker who knows the noise bit for bit can
beat a certificate (Voracek, Hein 2023, arXiv 2205.07069). Certificates here are for honest noise.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothinfer.engine.passes import Engine
from smoothinfer.engine.stopping import Stopping, Votes
from smoothinfer.engine.tally import count_first, final_tally
from smoothinfer.errors import (
    MOST_PASSES,
    InputError,
    check_images,
    plain_float,
    plain_int,
    plain_seed,
)
from smoothinfer.noise import Gaussian, NoisyModel
from smoothinfer.numerics.randomness import derive_seed, fresh_seed
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import ABSTAIN, Counts, Images, Labels

_TESTED = 20_000  # numbers of the noise that are tested for a Gaussian
_GROWTH = 1.25  # factor between checkpoints of the sequential certificate

FLOATS = (
    "certificates are statements about real numbers, for noise that the attacker does not know bit "
    "for bit: with floats, an attacker who does can beat them (arXiv 2205.07069)"
)


@dataclass(frozen=True)
class Certificates:
    """The certified labels and radii of N images.

    Attributes:
        labels: (N,) the class that the vote keeps, ``ABSTAIN`` (-1) where nothing is certain.
        radii: (N,) L2 radius in pixel units within which it does; 0 where it abstains.
        lower: (N,) lower confidence bound of the share of passes that choose it.
        samples: (N,) passes used.
    """

    labels: Labels
    radii: Tensor
    lower: Tensor
    samples: Tensor


def certify(
    model: nn.Module,
    images: Images,
    *,
    samples: int = 100_000,
    selection: int = 100,
    alpha: float = 1e-3,
    radius: float | None = None,
    seed: int | None = None,
) -> Certificates:
    """Certify each image: R = sigma Phi^-1(p), p a lower bound of the share of passes.

    ``selection`` passes choose the class A; fresh ones count n_A of n = ``samples`` passes for it,
    and p is the one-sided Clopper-Pearson bound, the alpha quantile of Beta(n_A, n - n_A + 1).
    Below 1/2 it abstains. The statement about an image fails with probability at most ``alpha``.

    With ``radius`` it asks only whether the vote holds within that radius, and stops as soon as
    that is decided: when the evidence for p > p0 = Phi(radius / sigma), the likelihood ratio of a
    share spread evenly over [p0, 1] against p0, reaches 1 / alpha. It gives up when the evidence
    for p < p0 does.

    Args:
        model: a `NoisyModel` with Gaussian noise on its pixels, in eval mode, or a
            `SmoothedClassifier` of one.
        images: (N, C, H, W), pixels in [0, 1].
        samples: n; with ``radius`` the most.
        selection: passes that choose the class.
        alpha: probability of a wrong statement about an image.
        radius: L2, in pixel units.
        seed: key of the passes; ``None`` draws fresh ones.

    Raises:
        InputError: the noise has no theorem (not Gaussian, in normalised units, learned) or does
            not follow its declared distribution; or a number is out of range.

    Source: Cohen, Rosenfeld, Kolter 2019, arXiv 1902.02918; Voracek, *Treatment of Statistical
    Estimation Problems in Randomized Smoothing*, NeurIPS 2024.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> noisy = NoisyModel(net, inputs=Gaussian(0.25)).eval()
    >>> found = certify(noisy, torch.rand(2, 1, 2, 2), samples=100, selection=10, seed=0)
    >>> found.radii.shape
    torch.Size([2])
    """
    from scipy.stats import norm

    noisy = model.model if isinstance(model, SmoothedClassifier) else model
    sigma = certifiable_sigma(noisy)
    check_images(images)
    if len(images) == 0:
        raise InputError("there are no images to certify")
    samples = plain_int("samples", samples, 1, MOST_PASSES)
    selection = plain_int("selection", selection, 1, MOST_PASSES)
    alpha = plain_float("alpha", alpha, above=0, below=1)
    radius = None if radius is None else plain_float("radius", radius, above=0)
    key = fresh_seed() if seed is None else plain_seed(seed)
    chooser = Engine(noisy, images, derive_seed(key, "selection"))
    chosen = _count_first(chooser, images, selection).argmax(1)
    engine = Engine(noisy, images, derive_seed(key, "estimation"))
    if radius is not None:
        test = _RadiusTest(chosen, float(norm.cdf(radius / sigma)), samples, alpha)
        test.check_possible(f"radius {radius:g} with sigma {sigma:g} and alpha {alpha:g}")
        used = final_tally(engine, images, [], test).used.cpu()
        chosen, holds = chosen.cpu(), test.holds.cpu()
        radii = torch.where(holds, float(radius), 0.0).double()
        lower = torch.where(holds, test.share, 0.0).double()
        labels = torch.where(holds, chosen, ABSTAIN)
        return Certificates(labels, radii, lower, used + selection)
    hits = _votes_for(count_first(engine, images, samples), chosen).cpu()
    bounds = [lower_bound(int(hit), samples, alpha) for hit in hits]
    lower = torch.tensor(bounds, dtype=torch.float64)
    certain = lower > 0.5
    radii = sigma * torch.from_numpy(norm.ppf(lower.clamp(min=0.5).numpy()))
    used = torch.full_like(hits, samples + selection)
    labels = torch.where(certain, chosen.cpu(), ABSTAIN)
    return Certificates(labels, radii * certain, lower, used)


def predict_or_abstain(
    model: nn.Module,
    images: Images,
    *,
    samples: int = 100,
    alpha: float = 1e-3,
    seed: int | None = None,
) -> Labels:
    """Return Cohen's prediction: the leading class, ``ABSTAIN`` where its lead may be chance.

    It abstains if the two-sided binomial test of the top two counts against 1/2 gives more than
    ``alpha``; an answer differs from the class that most passes choose with probability at most
    ``alpha``.

    Args:
        model: any random module in eval mode.
        images: (N, C, H, W), pixels in [0, 1].
        samples: passes; a unanimous vote of fewer than 11 is not enough at alpha = 0.001.
        alpha: probability of a wrong answer.
        seed: key of the passes; ``None`` draws fresh ones.

    Raises:
        InputError: images are malformed or a number is out of range.

    Source: Cohen, Rosenfeld, Kolter 2019, arXiv 1902.02918.

    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.01)).eval()
    >>> predict_or_abstain(noisy, torch.eye(4).view(4, 1, 2, 2), seed=0).tolist()
    [0, 1, 2, 3]
    """
    from scipy.stats import binomtest

    noisy = model.model if isinstance(model, SmoothedClassifier) else model
    check_images(images)
    if len(images) == 0:
        raise InputError("there are no images to certify")
    samples = plain_int("samples", samples, 1, MOST_PASSES)
    alpha = plain_float("alpha", alpha, above=0, below=1)
    key = fresh_seed() if seed is None else plain_seed(seed)
    top = _count_first(Engine(noisy, images, key), images, samples).cpu().topk(2, dim=1)
    sure = [binomtest(int(a), int(a + b)).pvalue <= alpha for a, b in top.values]
    return torch.where(torch.tensor(sure), top.indices[:, 0], ABSTAIN)


def certifiable_sigma(model: nn.Module) -> float:
    """Return the sigma of the Gaussian on the pixels of ``model``, for which the theorem holds.

    Raises:
        InputError: there is no such noise, or its numbers are not those of a Gaussian.
    """
    from scipy.stats import kstest, norm

    if not isinstance(model, NoisyModel):
        raise InputError("only a NoisyModel can be certified: its noise must be known")
    noise = model.inputs
    if type(noise) is not Gaussian or noise.sigma == 0:
        raise InputError(
            f"no theorem for inputs={noise}: certificates need Gaussian noise of sigma > 0 on the "
            "pixels"
        )
    if noise.units != "pixel":
        raise InputError(
            "in normalised units the noise differs from channel to channel, and no L2 radius in "
            "pixels follows: use units='pixel'"
        )
    drawn = noise(torch.zeros(1, 1, 1, _TESTED), torch.Generator().manual_seed(0)).flatten()
    if kstest(drawn.numpy(), norm(scale=noise.sigma).cdf).pvalue < 1e-6:
        raise InputError(f"the noise of inputs={noise} is not Gaussian with that sigma")
    return noise.sigma


def lower_bound(successes: int, samples: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson bound: at least this share, except with ``alpha``.

    >>> round(lower_bound(990, 1000, 0.001), 5)
    0.97604
    """
    from scipy.stats import beta

    return float(beta.ppf(alpha, successes, samples - successes + 1)) if successes else 0.0


def log_evidence(hits: Tensor, samples: int, share: float, *, above: bool) -> Tensor:
    """Return log of the evidence that a share of passes is above (or below) ``share``.

    The likelihood ratio of a share spread evenly over [share, 1] (or [0, share]) against ``share``
    itself: a test martingale where the claim is false, at any checkpoints (Ville).

    Args:
        hits: (N,) passes for the class.
        samples: passes.
        share: p0.
        above: the side.
    """
    import numpy as np
    from scipy.special import betainc, betaincc, betaln

    a, b = hits.double().cpu().numpy(), samples - hits.double().cpu().numpy()
    tail = (betaincc if above else betainc)(a + 1, b + 1, share)
    width = 1 - share if above else share
    with np.errstate(divide="ignore"):
        spread = betaln(a + 1, b + 1) + np.log(tail) - np.log(width)
    return torch.from_numpy(spread - a * np.log(share) - b * np.log1p(-share))


class _RadiusTest(Stopping):
    """Decides whether the share of passes for each image's class is above ``share``."""

    def __init__(self, chosen: Labels, share: float, samples: int, alpha: float) -> None:
        self.chosen, self.share, self.samples = chosen, share, samples
        self.needed = math.log(1 / alpha)
        self.holds = torch.zeros(len(chosen), dtype=torch.bool, device=chosen.device)

    def check_possible(self, claim: str) -> None:
        """Refuse a ``claim`` that even a unanimous vote does not prove."""
        every = torch.tensor([self.samples])
        best = 0.0
        if self.share < 1:
            best = float(log_evidence(every, self.samples, self.share, above=True))
        if best < self.needed:
            raise InputError(
                f"no vote of {self.samples} passes proves {claim}: not even a unanimous one"
            )

    def checkpoints(self) -> list[int]:
        points = [min(self.samples, round(_GROWTH * 16))]
        while points[-1] < self.samples:
            following = round(_GROWTH * max(points[-1], 16))
            points.append(min(self.samples, max(points[-1] + 1, following)))
        return points

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        hits = _votes_for(tally.counts[rows], self.chosen[rows])
        above, below = (
            log_evidence(hits, tally.passes, self.share, above=side) >= self.needed
            for side in (True, False)
        )
        self.holds[rows] = above.to(rows.device)
        return (above | below).to(rows.device)


def _votes_for(counts: Tensor, classes: Labels) -> Tensor:
    return counts.gather(1, classes[:, None]).squeeze(1)


def _count_first(engine: Engine, images: Images, samples: int) -> Counts:
    counts = count_first(engine, images, samples)
    if counts.shape[1] < 2:
        raise InputError(f"a vote needs at least 2 classes, the model has {counts.shape[1]}")
    return counts
