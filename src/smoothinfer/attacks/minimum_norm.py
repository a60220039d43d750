"""The nearest adversarial examples by C&W and DDN, verified by fresh votes on random models."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.attacks.carlini_wagner_linf import carlini_linf
from smoothinfer.attacks.checks import attack_precision, check_counts
from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.losses import log_mean_probability, margin
from smoothinfer.engine.members import run_passes, run_seeded
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import L2, Ball, Linf, per_image, pick_images
from smoothinfer.numerics.randomness import derive_seed, draw_seed, isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import frozen_parameters, is_training
from smoothinfer.types import Images, Labels, Scores

_HALVINGS = 10  # of the interval in which the vote changes
# How far beyond that point, as a share of the whole way.
_PUSHES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.35, 0.6, 1.0)
Search = Callable[[nn.Module, Images, Labels], Images]


@gated
def ddn(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 100,
    gamma: float = 0.05,
    samples: int | None = None,
    votes: int = 512,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Decoupled direction and norm: the nearest image (L2) that the vote gets wrong.

    Foolbox's attack runs on the mean probability of ``samples`` fixed draws: with fresh draws it
    would stop at a lucky one. Then fresh draws find the point along its direction where the vote
    changes, and the point behind it where the label has surely lost (by 2 standard errors of
    4 ``votes``, twice). If that lies outside the ball, the image stays as it was.

    Args:
        model, images, labels, generator: as for `pgd`.
        ball: `L2`; points beyond its radius, in pixel units, count as failures.
        steps, gamma: of DDN.
        samples: fixed draws; by default 64 where two forward passes differ, else 1.
        votes: fresh draws that find where the vote changes. The point returned lies farther, since
            the label must surely have lost: under Gaussian noise by some 4 sigma / sqrt(votes).
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: see `attack_precision`.

    Raises:
        InputError: images or labels are malformed, the ball is not `L2`, or Foolbox is missing.

    Source: Rony et al. 2019, arXiv 1811.09600; Rauber et al., Foolbox.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> ddn(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), L2(1.0), steps=10).shape
    torch.Size([3, 1, 2, 2])
    """
    if not isinstance(ball, L2):
        raise InputError(f"ddn finds the nearest point in L2, not in {ball}")
    settings: dict[str, Any] = {"init_epsilon": 1.0, "steps": steps, "gamma": gamma}

    def search(fixed: nn.Module, images: Images, labels: Labels) -> Images:
        return _by_foolbox("DDNAttack", _WithSmallLeads(fixed), images, labels, **settings)

    return _nearest(search, model, images, labels, ball, samples, votes, precision, generator)


@gated
def cw(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int | None = None,
    searches: int | None = None,
    rate: float | None = None,
    confidence: float = 0.0,
    initial: float = 1e-3,
    samples: int | None = None,
    votes: int = 512,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Carlini and Wagner's attack: the nearest image that the vote gets wrong, see `ddn`.

    In L2 it is Foolbox's; in L-infinity, where Foolbox has none, see `carlini_linf`.

    Args:
        model, images, labels, samples, votes, precision, generator: as for `ddn`.
        ball: `L2` or `Linf`; points beyond its radius, in pixel units, count as failures.
        steps: Adam steps of each search; by default 1,000 in L2 and 100 in L-infinity.
        searches: for the constant c in L2 (by default 9), for the box in L-infinity (20).
        rate: of Adam; by default 0.01 in L2, and 0.1 of the box in L-infinity.
        confidence: kappa, the lead that the wrong class must have.
        initial: c at first.

    Raises:
        InputError: images or labels are malformed, a number is out of range, or Foolbox is missing.

    Source: Carlini, Wagner 2017, arXiv 1608.04644; Rauber et al., Foolbox.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> cw(net, images, labels, L2(1.0), steps=10, searches=2).shape
    torch.Size([3, 1, 2, 2])
    """
    usual = (100, 20, 0.1) if isinstance(ball, Linf) else (1000, 9, 0.01)
    steps = usual[0] if steps is None else steps
    searches = usual[1] if searches is None else searches
    rate = usual[2] if rate is None else rate
    check_counts(steps=steps, searches=searches)
    if not rate > 0 or confidence < 0 or not initial > 0:
        raise InputError(
            f"rate {rate} and initial {initial} must be positive, confidence {confidence} not "
            "negative"
        )
    options: dict[str, Any] = {"steps": steps, "confidence": confidence}
    if isinstance(ball, Linf):
        options |= {"searches": searches, "rate": rate, "initial": initial, "radius": ball.radius}
        search: Search = partial(carlini_linf, **options)
    else:
        options |= {"binary_search_steps": searches, "stepsize": rate, "initial_const": initial}
        search = partial(_by_foolbox, "L2CarliniWagnerAttack", **options)
    return _nearest(search, model, images, labels, ball, samples, votes, precision, generator)


def _nearest(
    search: Search,
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    samples: int | None,
    votes: int,
    precision: str,
    generator: torch.Generator | None,
) -> Images:
    check_counts(samples=samples, votes=votes)
    if len(images) == 0:
        return images
    with (
        frozen_parameters(model),
        isolated_rng(draw_seed(generator)),
        attack_precision(model, images, precision) as random,
    ):
        fixed = _FixedDraws(model, fresh_seeds(1)[0], samples or 64) if random else model
        points = search(fixed, images, labels)
        if random:
            points = _where_the_vote_changes(model, images, points, labels, ball, votes)
    outside = ball.distance(points, images) > ball.radius
    return pick_images(outside, images, points)


class _FixedDraws(nn.Module):
    """log mean probability over ``samples`` draws, the same at every call.

    Noise drawn for each image depends on its place in the batch, so this is for an attack that
    keeps its batch together. Memory holds one draw at a time.

    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
    >>> fixed, images = _FixedDraws(net, seed=0, samples=4), torch.rand(3, 1, 2, 2)
    >>> bool((fixed(images) == fixed(images)).all())
    True
    """

    def __init__(self, model: nn.Module, seed: int = 0, samples: int = 1) -> None:
        super().__init__()
        self.model, self.training = model, is_training(model)
        self.seeds = [derive_seed(seed, "frozen", s) for s in range(samples)]

    def forward(self, images: Images) -> Scores:
        """Return scores (N, K) on a log scale, differentiable."""
        draws = [partial(run_seeded, self.model, seed=seed) for seed in self.seeds]
        return log_mean_probability(torch.stack(run_passes(draws, images)))


class _InEvalMode(nn.Module):
    """A wrapper in eval mode: Foolbox's own switch would turn off dropout that was left on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, False

    def forward(self, images: Images) -> Tensor:
        return logits_of(self.model, images)


class _WithSmallLeads(nn.Module):
    """The same order of classes with leads of at most 10 logits: DDN follows the gradient of
    Foolbox's cross-entropy, which float32 rounds to zero on confident networks.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, is_training(model)

    def forward(self, images: Images) -> Tensor:
        logits = logits_of(self.model, images)
        first, second = logits.detach().topk(2, dim=1).values.unbind(1)
        return logits / ((first - second) / 10).clamp_min(1)[:, None]


def _by_foolbox(
    name: str, model: nn.Module, images: Images, labels: Labels, **settings: Any
) -> Images:
    # Foolbox imports GitPython, which refuses to load where git is not installed.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        import foolbox.attacks
    except ImportError as error:
        raise InputError("C&W and DDN run through Foolbox: pip install foolbox") from error
    wrapped = foolbox.PyTorchModel(_InEvalMode(model), bounds=(0, 1), device=images.device)
    attack = getattr(foolbox.attacks, name)(**settings)
    with torch.enable_grad():
        _, adversarial, _ = attack(wrapped, images, labels, epsilons=None)
    points: Tensor = adversarial.detach()
    return torch.where(points.isfinite(), points, images).clamp(0, 1)


@torch.no_grad()
def _where_the_vote_changes(
    model: nn.Module, images: Images, points: Images, labels: Labels, ball: Ball, votes: int
) -> Images:
    """Return the nearest point towards ``points``, or beyond, where the label has surely lost."""
    eot, seeds, way = EOTLoss(model, margin), fresh_seeds(votes), points - images

    def at(share: Tensor) -> Images:
        return (images + per_image(share, images) * way).clamp(0, 1)

    near, far = torch.zeros(2, len(images), device=images.device)
    far += 2.0
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        lost = eot.is_outvoted(at(middle), labels, seeds, errors=0)
        near, far = torch.where(lost, near, middle), torch.where(lost, middle, far)
    within = ball.distance(at(far), images) <= ball.radius
    share, rows = far.clone(), within.nonzero().flatten()
    for push in _PUSHES:  # near a tie another vote may decide otherwise
        if len(rows) == 0:
            break
        share[rows] = far[rows] + push
        sure = _outvoted_twice(eot, at(share)[rows], labels[rows], 4 * votes)
        rows = rows[~sure]
    share[rows] = 0.0  # never sure: no success
    turned = at(share)
    return pick_images(within, ball.project(turned, images), turned)


def _outvoted_twice(eot: EOTLoss, points: Images, labels: Labels, votes: int) -> Tensor:
    """True where two independent votes reject the label; of many points one passes by chance."""
    sure = eot.is_outvoted(points, labels, fresh_seeds(votes))
    again = eot.is_outvoted(points[sure], labels[sure], fresh_seeds(votes))
    return sure.masked_scatter(sure, again)
