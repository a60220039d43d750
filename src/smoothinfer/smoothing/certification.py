"""Certificates: a radius within which no attack can change the vote, except with probability alpha.

Under Gaussian noise of sigma on the pixels, let p be the share of passes that choose a class.
Moving the image by r in L2 leaves at least Phi(Phi^-1(p) - r / sigma) of them. So the class keeps
its majority within R = sigma Phi^-1(p). The bound also holds for the average over any further
noise (weights, activations) that does not depend on the image.

The mathematics is about real numbers: with floats an attacker who knows the noise bit for bit can
beat a certificate (Voracek, Hein 2023, arXiv 2207.07209), unless the noise is a `GridGaussian`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from smoothinfer.engine.passes import Engine
from smoothinfer.engine.tally import count_first, final_tally
from smoothinfer.errors import (
    MOST_PASSES,
    InputError,
    check_images,
    check_labels,
    plain_float,
    plain_int,
    plain_seed,
    unknown,
)
from smoothinfer.numerics.randomness import derive_seed, fresh_seed
from smoothinfer.smoothing.certifiable import Slack, certifiable_sigma, slack_of
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.smoothing.radii_test import KINDS, RadiiTest
from smoothinfer.smoothing.sequences import clopper_pearson
from smoothinfer.types import ABSTAIN, Counts, Images, Labels

METHODS = (*KINDS, "fixed")
# The factor from a radius in a norm to that of the L2 ball around it, by the numbers of an image.
THROUGH_L2: dict[str, Callable[[int], float]] = {
    "l2": lambda entries: 1.0,
    "linf": math.sqrt,
    "l1": lambda entries: 1.0,
}

FLOATS = (
    "certificates are statements about real numbers, for noise that the attacker does not know bit "
    "for bit: with floats, an attacker who does can beat them (arXiv 2207.07209), unless the noise "
    "is grid_gaussian"
)


@dataclass(frozen=True)
class Certificates:
    """The certified labels and radii of N images.

    Attributes:
        labels: (N,) the class that the vote keeps, ``ABSTAIN`` (-1) where nothing is certain.
        radii: (N,) L2 radius in pixel units within which it does; 0 where it abstains.
        lower: (N,) lower confidence bound of the share of passes that choose it.
        samples: (N,) passes used.
        decided: (N,) whether the passes sufficed: an image that abstains undecided might have
            been certified by more of them.
    """

    labels: Labels
    radii: Tensor
    lower: Tensor
    samples: Tensor
    decided: Tensor


def certify(
    model: nn.Module,
    images: Images,
    *,
    radii: Sequence[float] | float | None = None,
    method: str = "spending",
    samples: int = 100_000,
    selection: int = 100,
    alpha: float = 1e-3,
    seed: int | None = None,
    truth: Labels | None = None,
) -> Certificates:
    """Certify each image at the largest of ``radii`` that holds, with no more passes than it takes.

    ``selection`` passes choose the class A; fresh ones are counted until it is decided which of the
    radii hold, by confidence sequences of pA and pB, see `RadiiTest`. All radii together are wrong
    with probability at most ``alpha`` for an image.

    With ``method="fixed"`` it counts n_A of n = ``samples`` passes and gives any radius:
    R = sigma Phi^-1(p), p the one-sided Clopper-Pearson bound, the alpha quantile of
    Beta(n_A, n - n_A + 1). Below 1/2 it abstains.

    Args:
        model: a `NoisyModel` with Gaussian noise on its pixels, in eval mode, or a
            `SmoothedClassifier` of one.
        images: (N, C, H, W), pixels in [0, 1].
        radii: L2, in pixel units; 0 asks whether the class leads. By default multiples of sigma /
            2, as far as ``samples`` can prove.
        method: ``"spending"``, tests at looks known beforehand, ``"betting"`` or ``"union"``, a
            confidence sequence, see `RadiiTest`; or ``"fixed"``.
        samples: n; the most, if not fixed.
        selection: passes that choose the class.
        alpha: probability of a wrong statement about an image.
        seed: key of the passes; ``None`` draws fresh ones.
        truth: (N,) labels; an image whose class A is another gets no certificate and no passes
            for one, which is all that certified accuracy asks. Not with ``"fixed"``.

    Raises:
        InputError: the noise has no theorem (not Gaussian, in normalised units, learned) or does
            not follow its declared distribution; or a number is out of range.

    Source: Cohen, Rosenfeld, Kolter 2019, arXiv 1902.02918; Voracek, *Treatment of Statistical
    Estimation Problems in Randomized Smoothing*, NeurIPS 2024.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> noisy = NoisyModel(net, inputs=Gaussian(0.25)).eval()
    >>> found = certify(noisy, torch.rand(2, 1, 2, 2), samples=100, selection=10, seed=0)
    >>> found.radii.shape
    torch.Size([2])
    """
    noisy = model.model if isinstance(model, SmoothedClassifier) else model
    sigma = certifiable_sigma(noisy)
    check_images(images)
    if len(images) == 0:
        raise InputError("there are no images to certify")
    if truth is not None:
        check_labels(truth, images)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    samples = plain_int("samples", samples, 1, MOST_PASSES)
    selection = plain_int("selection", selection, 1, MOST_PASSES)
    alpha = plain_float("alpha", alpha, above=0, below=1)
    key = fresh_seed() if seed is None else plain_seed(seed)
    if method == "fixed" and radii is not None:
        raise InputError("method fixed gives every image a radius of its own: leave out radii")
    asked = [0.5 * sigma * k for k in range(20)] if radii is None else sorted_radii(radii)
    slack = slack_of(noisy, images)
    chooser = Engine(noisy, images, derive_seed(key, "selection"))
    counts = _count_first(chooser, images, selection)
    chosen, classes = counts.argmax(1), counts.shape[1]
    if method == "fixed":
        engine = Engine(noisy, images, derive_seed(key, "estimation"))
        return _fixed(engine, images, chosen, samples, selection, alpha, sigma, slack)
    wanted = torch.ones_like(chosen, dtype=torch.bool)
    if truth is not None:
        wanted = chosen == truth.to(chosen.device)
    rows = wanted.nonzero().flatten()
    claim = slack.radius, sigma, samples, alpha, method, classes
    test = RadiiTest(chosen[rows], asked, *claim, slack.share, skip=radii is None)
    used = torch.full((len(images),), selection)
    labels, closed = chosen.cpu().clone(), torch.ones(len(images), dtype=torch.bool)
    radii_found, lower = (torch.zeros(len(images), dtype=torch.float64) for _ in range(2))
    if len(rows):
        engine = Engine(noisy, images[rows], derive_seed(key, "estimation"))
        at = rows.cpu()
        used[at] += final_tally(engine, images[rows], [], test).used.cpu()
        place = test.certified
        labels[at] = torch.where(place < 0, ABSTAIN, labels[at])
        # Looked up, not computed: a radius that is asked for is reached exactly.
        reached = torch.tensor(asked, dtype=torch.float64)[place.clamp(min=0)]
        radii_found[at] = torch.where(place < 0, 0.0, reached)
        lower[at], closed[at] = torch.from_numpy(test.lower), test.closed
    return Certificates(labels, radii_found, lower, used, closed)


def _fixed(
    engine: Engine,
    images: Images,
    chosen: Labels,
    samples: int,
    selection: int,
    alpha: float,
    sigma: float,
    slack: Slack,
) -> Certificates:
    """Return Cohen's certificates, from ``samples`` passes of every image."""
    from scipy.special import ndtri

    hits = votes_for(count_first(engine, images, samples), chosen).cpu()
    bounds = [lower_bound(int(hit), samples, alpha) - slack.share for hit in hits]
    lower = torch.tensor(bounds, dtype=torch.float64)
    found = sigma * torch.from_numpy(ndtri(lower.clamp(min=0.5).numpy())) - slack.radius
    certain = (lower > 0.5) & (found >= 0)
    used = torch.full_like(hits, samples + selection)
    labels = torch.where(certain, chosen.cpu(), ABSTAIN)
    return Certificates(labels, found * certain, lower, used, certain)


def sorted_radii(radii: Sequence[float] | float) -> list[float]:
    """Return radii in ascending order, each once.

    Raises:
        InputError: there is none, or one is negative or no finite number.
    """
    each = np.asarray(radii).reshape(-1).tolist() if hasattr(radii, "shape") else radii
    each = each if isinstance(each, Sequence) and not isinstance(each, str) else [each]
    found = sorted({plain_float("radius", one, at_least=0) for one in each})
    if not found:
        raise InputError("there are no radii to certify")
    return found


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

    >>> from smoothinfer.noise import Gaussian, NoisyModel
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


def lower_bound(successes: int, samples: int, alpha: float) -> float:
    """Return the one-sided Clopper-Pearson bound: at least this share, except with ``alpha``.

    >>> round(lower_bound(990, 1000, 0.001), 5)
    0.97604
    """
    return float(clopper_pearson(np.array([float(successes)]), samples, alpha)[0])


def votes_for(counts: Tensor, classes: Labels) -> Tensor:
    """Return the passes (N,) that chose each image's class."""
    return counts.gather(1, classes[:, None]).squeeze(1)


def _count_first(engine: Engine, images: Images, samples: int) -> Counts:
    counts = count_first(engine, images, samples)
    if counts.shape[1] < 2:
        raise InputError(f"a vote needs at least 2 classes, the model has {counts.shape[1]}")
    return counts
