"""The nearest adversarial examples, C&W and DDN, made honest for random models."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.attacks.carlini_wagner_linf import carlini_linf
from smoothinfer.attacks.checks import check_attack
from smoothinfer.attacks.frozen import Frozen
from smoothinfer.attacks.eot import Landscape, fresh_seeds, searching
from smoothinfer.attacks.losses import margin
from smoothinfer.errors import InputError
from smoothinfer.runtime.modes import parameters_frozen
from smoothinfer.numerics.balls import L2, Ball, Linf
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels

_HALVINGS = 10  # of the interval in which the vote turns
# Of the way, beyond where it turns.
_PUSHES = (0.0, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.35, 0.6, 1.0)
Search = Callable[[nn.Module, Images, Labels], Images]


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

    A random model is held still at ``samples`` draws, on whose mean probability Foolbox's attack
    runs: on fresh draws it would stop at a lucky one. Then fresh draws decide how far along the
    direction found the vote turns, and how far behind that the label has surely lost it (by 2
    standard errors of 4 ``votes``, twice); further than the ball, and the image stays as it was.

    Args:
        model: any module from images to logits, random or not, in eval mode.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `L2`; points beyond its radius, in pixel units, count as failures.
        steps, gamma: of DDN.
        samples: draws held still; by default 64 where two forward passes differ, else 1.
        votes: fresh draws that decide where the vote turns. The point lies farther than that, since
            it must surely have turned: under Gaussian noise by some 4 sigma / sqrt(votes).
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: see `searching`.
        generator: source of the draws.

    Raises:
        InputError: images or labels are malformed, the ball is not `L2`, or Foolbox is missing.

    Source: Rony et al. 2019, arXiv 1811.09600; Rauber et al., Foolbox.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    >>> ddn(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), L2(1.0), steps=10).shape
    torch.Size([3, 1, 2, 2])
    """
    if not isinstance(ball, L2):
        raise InputError(f"ddn finds the nearest point in L2, not in {ball}")
    search = partial(_by_foolbox, "DDNAttack", init_epsilon=1.0, steps=steps, gamma=gamma)
    return _nearest(search, model, images, labels, ball, samples, votes, precision, generator)


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
        confidence: kappa, by how much the wrong class must lead.
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
    check_attack(model, images, labels, ball, steps=steps, searches=searches)
    if not rate > 0 or confidence < 0 or not initial > 0:
        raise InputError(
            f"rate {rate} and initial {initial} must be positive, confidence {confidence} not "
            "negative"
        )
    goal: dict[str, Any] = {"steps": steps, "confidence": confidence}
    if isinstance(ball, Linf):
        goal |= {"searches": searches, "rate": rate, "initial": initial, "radius": ball.radius}
        search: Search = partial(carlini_linf, **goal)
    else:
        goal |= {"binary_search_steps": searches, "stepsize": rate, "initial_const": initial}
        search = partial(_by_foolbox, "L2CarliniWagnerAttack", **goal)
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
    check_attack(model, images, labels, ball, samples=samples, votes=votes)
    if len(images) == 0:
        return images
    with (
        parameters_frozen(model),
        isolated_rng(draw_seed(generator)),
        searching(model, images, precision) as random,
    ):
        still = Frozen(model, fresh_seeds(1)[0], samples or 64) if random else model
        found = search(still, images, labels)
        if random:
            found = _where_the_vote_turns(model, images, found, labels, ball, votes)
    far = ball.distance(found, images) > ball.radius
    return torch.where(far.view(-1, 1, 1, 1), images, found)


class _AsItIs(nn.Module):
    """A model that Foolbox need not put into eval mode: that would turn off dropout left on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.training = model, False

    def forward(self, images: Images) -> Tensor:
        scores: Tensor = self.model(images)
        return scores


def _by_foolbox(
    name: str, model: nn.Module, images: Images, labels: Labels, **settings: Any
) -> Images:
    # Foolbox imports GitPython, which refuses to load where git is not installed.
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        import foolbox.attacks
    except ImportError as error:
        raise InputError("C&W and DDN run through Foolbox: pip install foolbox") from error
    wrapped = foolbox.PyTorchModel(_AsItIs(model), bounds=(0, 1), device=images.device)
    attack = getattr(foolbox.attacks, name)(**settings)
    with torch.enable_grad():
        _, found, _ = attack(wrapped, images, labels, epsilons=None)
    kept: Tensor = found.detach()
    return torch.where(kept.isfinite(), kept, images).clamp(0, 1)


@torch.no_grad()
def _where_the_vote_turns(
    model: nn.Module, images: Images, found: Images, labels: Labels, ball: Ball, votes: int
) -> Images:
    """Return the nearest point towards ``found``, or farther, where the label has surely lost."""
    land, seeds, way = Landscape(model, margin), fresh_seeds(votes), found - images

    def at(share: Tensor) -> Images:
        return (images + share.view(-1, 1, 1, 1) * way).clamp(0, 1)

    near, far = torch.zeros(2, len(images), device=images.device)
    far += 2.0
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        lost = land.outvoted(at(middle), labels, seeds, errors=0)
        near, far = torch.where(lost, near, middle), torch.where(lost, middle, far)
    within = ball.distance(at(far), images) <= ball.radius
    share, rows = far.clone(), within.nonzero().flatten()
    for push in _PUSHES:  # where the vote is even, whoever votes again decides
        if len(rows) == 0:
            break
        share[rows] = far[rows] + push
        sure = _twice(land, at(share)[rows], labels[rows], 4 * votes)
        rows = rows[~sure]
    share[rows] = 0.0  # never sure: no success
    moved = at(share)
    return torch.where(within.view(-1, 1, 1, 1), ball.project(moved, images), moved)


def _twice(land: Landscape, points: Images, labels: Labels, votes: int) -> Tensor:
    """Say where the label is outvoted twice: who tries at many points passes once by chance."""
    sure = land.outvoted(points, labels, fresh_seeds(votes))
    again = land.outvoted(points[sure], labels[sure], fresh_seeds(votes))
    return sure.masked_scatter(sure, again)
