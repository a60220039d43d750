"""Expectation over transformation (EoT): losses and gradients averaged over draws of the noise.

Two points compare fairly only under common random numbers: a draw that fools the model by luck then
fools it at both points. So the draws of a step have seeds, and every value that the step compares
is computed with them. The next step has new draws: an attack must not fit the noise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from smoothinfer.attacks.gradients import gradient_of
from smoothinfer.attacks.losses import AttackLoss, Pool, log_mean_probability, loss_of
from smoothinfer.engine.members import SeededPasses, run_draws, run_seeded
from smoothinfer.engine.stopping import Stopping, Votes, growing
from smoothinfer.engine.tally import final_tally
from smoothinfer.numerics.balls import pick_images
from smoothinfer.numerics.recording import is_recording
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Labels, Logits

Seeds = Sequence[int]
_CONFIRMING = 32  # fresh draws that confirm a success
_FIRST_CHECK = 32  # draws, then twice as many each time, after which clear points are decided


@dataclass(frozen=True)
class LossValues:
    """The loss at N points, averaged over draws.

    Attributes:
        value: (N,) the loss.
        wrong: (N,) share of draws that do not put the label first.
        gradient: (N, C, H, W) of the loss, where it was computed.
    """

    value: Tensor
    wrong: Tensor
    gradient: Tensor | None = None


@dataclass(frozen=True)
class EOTLoss:
    """The loss of an attack on ``model``, as a function of points and seeds.

    Args:
        model: any module from images to logits, random through the global generators.
        loss: (logits, labels) -> (N,).
        pool: turns draws into one answer whose loss is taken; ``None`` takes the mean of each
            draw's loss (EoT).
        random: whether two draws may differ.

    >>> from smoothinfer.attacks.losses import cross_entropy
    >>> eot = EOTLoss(nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2)), cross_entropy)
    >>> points, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> one, two = (eot.evaluate(points, labels, [1, 2]).value for _ in range(2))
    >>> bool((one == two).all())
    True
    """

    model: nn.Module
    loss: AttackLoss
    pool: Pool | None = None
    random: bool = True

    @torch.no_grad()
    def evaluate(self, points: Images, labels: Labels, seeds: Seeds) -> LossValues:
        """Return the loss at ``points`` under the draws ``seeds``."""
        logits = torch.stack(run_draws(self.model, points, seeds))
        graded = logits
        if getattr(self.model, "hard", False):  # its scores differ where a gradient is computed
            graded = torch.stack([logits_with_grad(self.model, points, seed) for seed in seeds])
        return LossValues(self._average(graded, labels), _wrong(logits, labels))

    def evaluate_with_gradient(self, points: Images, labels: Labels, seeds: Seeds) -> LossValues:
        """Return the loss and its gradient; memory does not grow with the number of draws."""
        if self.pool is None:
            return self._mean_gradient(points, labels, seeds)
        with torch.no_grad():
            logits = torch.stack(run_draws(self.model, points, seeds))
        with torch.enable_grad():
            leaf = logits.detach().double().requires_grad_()
            value = self._average(leaf, labels)
            (weights,) = torch.autograd.grad(value.sum(), leaf)
        gradient = torch.zeros_like(points, dtype=torch.float64)
        for seed, weight in zip(seeds, weights, strict=True):
            draw = partial(run_seeded, self.model, seed=seed)
            gradient += gradient_of(draw, points, partial(torch.mul, weight))[0]
        return LossValues(value.detach(), _wrong(logits, labels), gradient)

    def _mean_gradient(self, points: Images, labels: Labels, seeds: Seeds) -> LossValues:
        total, logits = torch.zeros_like(points, dtype=torch.float64), []
        loss = partial(loss_of, self.loss, labels=labels)
        for seed in seeds:
            draw = partial(run_seeded, self.model, seed=seed)
            gradient, found = gradient_of(draw, points, loss)
            total += gradient / len(seeds)
            logits.append(found)
        every = torch.stack(logits)
        return LossValues(self._average(every, labels), _wrong(every, labels), total)

    def _average(self, logits: Tensor, labels: Labels) -> Tensor:
        if self.pool is not None:
            return loss_of(self.loss, self.pool(logits), labels)
        return torch.stack([loss_of(self.loss, each, labels) for each in logits]).mean(0)

    def is_fooled(self, points: Images, labels: Labels, values: LossValues) -> Tensor:
        """Say which points all draws of ``values`` get wrong, and 32 fresh ones as well."""
        fooled = values.wrong >= 1
        if self.random and fooled.any():
            with torch.no_grad():
                draws = run_draws(self.model, points[fooled], fresh_seeds(_CONFIRMING))
            wrong = _wrong(torch.stack(draws), labels[fooled])
            fooled = fooled.masked_scatter(fooled, wrong >= 1)
        return fooled

    @torch.no_grad()
    def is_outvoted(
        self, points: Images, labels: Labels, seeds: Seeds, errors: float = 2.0
    ) -> Tensor:
        """Say where the label is behind another class by more than ``errors`` standard errors.

        Points that are ``errors`` + 3 of them away from a tie, either way, get no more draws.
        """
        test = _LeadTest(labels, len(seeds), errors)
        if len(points):
            final_tally(SeededPasses(self.model, seeds), points, [], test)
        return test.lost


class _LeadTest(Stopping):
    """Decides for each point whether another class leads its label."""

    def __init__(self, labels: Labels, most: int, errors: float) -> None:
        self.labels, self.most, self.errors = labels, most, errors
        self.lost = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)

    def checkpoints(self) -> list[int]:
        return growing(_FIRST_CHECK, self.most, 2)

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        lead, error = _lead(tally.counts[rows] / tally.passes, self.labels[rows], tally.passes)
        self.lost[rows] = lead > self.errors * error
        return lead.abs() > (self.errors + 3) * error.clamp_min(1 / tally.passes)


def _lead(shares: Tensor, labels: Labels, draws: int) -> tuple[Tensor, Tensor]:
    """Return by how much the first other class leads the label, (N,), and its standard error."""
    own = shares.gather(1, labels[:, None]).squeeze(1)
    other = shares.scatter(1, labels[:, None], -1.0).amax(1)
    lead = other - own
    return lead, ((other + own - lead.square()) / draws).clamp_min(0).sqrt()


class BestPoints:
    """For each image the point with the highest loss so far, all judged by the same draws.

    Args:
        eot: the loss.
        points: (N, C, H, W), the first ones.
        labels: (N,).
        seeds: of the draws.
    """

    def __init__(self, eot: EOTLoss, points: Images, labels: Labels, seeds: Seeds) -> None:
        self.eot, self.labels, self.seeds = eot, labels, seeds
        self.points, self.value = points, eot.evaluate(points, labels, seeds).value

    def offer(self, points: Images) -> None:
        """Keep ``points`` where their loss is higher."""
        value = self.eot.evaluate(points, self.labels, self.seeds).value
        better = value > self.value
        self.points = pick_images(better, points, self.points)
        self.value = torch.where(better, value, self.value)


def pooled_gradient(
    model: nn.Module,
    images: Images,
    labels: Labels,
    loss: AttackLoss,
    draws: int = 1,
    pool: Pool = log_mean_probability,
) -> Tensor:
    """grad_x loss(pool(model(x) over M draws), y): the gradient of the loss of the average.

    With the cross-entropy and the mean probability it is SmoothAdv's gradient,
    sum_i p_i grad log p_i / sum_i p_i with p_i the label's probability: draws that are already
    fooled weigh little. Each draw is run twice under the same seed, so memory does not grow with M.

    Args:
        model: any module from images (N, C, H, W) to logits.
        images, labels: (N, C, H, W) and (N,).
        loss: (logits, labels (N,)) -> (N,).
        draws: M, at least 1.
        pool: turns the draws into one answer; see ``POOLS``.

    Source: Salman et al. 2019, arXiv 1906.04584; Nemcovsky et al. 2019, section 2.

    >>> from smoothinfer.attacks.losses import cross_entropy
    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    >>> images, labels = torch.rand(1, 1, 2, 2), torch.tensor([0])
    >>> pooled_gradient(net, images, labels, cross_entropy, draws=8).shape
    torch.Size([1, 1, 2, 2])
    """
    if is_recording():  # which forbids seeds: memory holds all draws
        return _pooled_at_once(model, images, labels, loss, draws, pool)
    eot, seeds = EOTLoss(model, loss, pool), fresh_seeds(draws)
    gradient = eot.evaluate_with_gradient(images, labels, seeds).gradient
    assert gradient is not None
    return gradient


def _pooled_at_once(
    model: nn.Module, images: Images, labels: Labels, loss: AttackLoss, draws: int, pool: Pool
) -> Tensor:
    def run(points: Images) -> Tensor:
        logits = torch.stack([logits_of(model, points) for _ in range(draws)])
        return logits.transpose(0, 1).flatten(1)

    def pooled(rows: Tensor) -> Tensor:
        logits = rows.unflatten(1, (draws, -1)).transpose(0, 1)
        return loss_of(loss, pool(logits), labels)

    return gradient_of(run, images, pooled)[0]


def fresh_seeds(count: int) -> list[int]:
    """Draw ``count`` seeds from the global generator."""
    return torch.randint(2**62, (count,)).tolist()


def logits_with_grad(model: nn.Module, images: Images, seed: int) -> Logits:
    """Return the logits of one draw as the model gives them when a gradient is computed."""
    with torch.enable_grad():
        return run_seeded(model, images.detach().requires_grad_(), seed).detach()


def _wrong(logits: Tensor, labels: Labels) -> Tensor:
    return (logits.argmax(2) != labels).float().mean(0)
