"""Attacks that use the model's answers alone: NAttack, and gradients estimated by NES."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.attacks.checks import attack_precision, check_counts
from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.gate import by_queries
from smoothinfer.attacks.losses import AttackLoss, loss_of, margin
from smoothinfer.engine.members import run_seeded
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import L2, Ball, per_image
from smoothinfer.numerics.precision import autocast_to
from smoothinfer.numerics.randomness import draw_seed, isolated_rng, normal
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Labels

_CHECK_EVERY, _CHECK_DRAWS = 10, 32


def query_gradient(
    model: nn.Module,
    images: Images,
    labels: Labels,
    loss: AttackLoss,
    draws: int = 1,
    queries: int = 32,
    spread: float = 0.001,
) -> Tensor:
    """(1/(2 m s)) sum_j (f(x + s u_j) - f(x - s u_j)) u_j: the gradient, from answers alone.

    f is the loss under one draw, the same on both sides; u_j ~ N(0, I) in antithetic pairs.
    Answers are fp32, also under autocast: such small differences are lost when they are rounded.

    Args:
        model, images, labels, loss: as for `mean_gradient`.
        draws: M: the m = M * ``queries`` pairs cost 2 m forward passes.
        queries: pairs for each draw.
        spread: s, in pixel units.

    Raises:
        InputError: ``queries`` is less than 1 or ``spread`` is not positive.

    Source: Ilyas et al. 2018, *Black-box Adversarial Attacks with Limited Queries and
    Information*, arXiv 1804.08598.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> query_gradient(net, torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), margin, queries=4).shape
    torch.Size([2, 1, 2, 2])
    """
    if queries < 1 or not spread > 0:
        raise InputError(f"queries {queries} must be >= 1 and spread {spread} positive")
    total = torch.zeros_like(images, dtype=torch.float64)
    with torch.no_grad(), autocast_to("fp32", images.device):
        for seed in fresh_seeds(draws * queries):
            direction = normal(images.shape, images)
            up, down = (
                loss_of(loss, run_seeded(model, images + side * spread * direction, seed), labels)
                for side in (1, -1)
            )
            total += per_image((up - down) / (2 * spread), total) * direction
    return total / (draws * queries)


@by_queries
@torch.no_grad()
def nattack(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 400,
    population: int = 300,
    spread: float = 0.1,
    rate: float = 0.008,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """Learn by NES the mean m of x + clip(g(g^-1(x) + m + s e) - x, ball), e ~ N(0, I).

    g = (tanh + 1) / 2. Each step draws ``population`` e_j, rewards each by
    -max(log p_y - max_{j != y} log p_j, 0) / 2, standardises the rewards to A_j over the
    population, and moves m by rate / (population * s) * sum_j A_j e_j. Every query has its own
    noise. Every 10 steps the centre is tried on 32 fresh draws; an image leaves when its label is
    behind another class by 2 standard errors. At black and white, where g is flat, g^-1 starts half
    a radius further inside: else such pixels would hardly move.

    Costs ``steps * population`` queries an image.

    Args:
        model, images, labels, ball, generator: as for `pgd`; no gradient of the model is used.
        steps, population: number of steps, and queries of each.
        spread: s, in units of g^-1.
        rate: learning rate of m.
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: of the queries bfloat16 where the device
            multiplies it in hardware, of the tries see `attack_precision`.

    Raises:
        InputError: images or labels are malformed, or a number is out of range.

    Source: Li et al. 2019, *NATTACK*, arXiv 1905.00441.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> adversarial = nattack(net, images, labels, Linf(0.1), steps=2, population=8)
    >>> bool(((adversarial - images).abs() <= 0.1 + 1e-6).all())
    True
    """
    check_counts(steps=steps)
    if population < 2 or not (spread > 0 and rate > 0):
        raise InputError(
            f"population {population} must be >= 2, spread {spread} and rate {rate} positive"
        )
    if len(images) == 0:
        return images
    with isolated_rng(draw_seed(generator)), attack_precision(model, images, precision):
        search = _Search(model, images, labels, ball, spread, precision)
        for step in range(1, steps + 1):
            search.step(population, rate)
            if step % _CHECK_EVERY == 0 or step == steps:
                search.check()
            if len(search.active) == 0:
                break
    return search.adversarial


class _Search:
    def __init__(
        self,
        model: nn.Module,
        images: Images,
        labels: Labels,
        ball: Ball,
        spread: float,
        precision: str,
    ) -> None:
        self.model, self.images, self.labels = model, images, labels
        self.ball, self.spread, self.precision = ball, spread, precision
        self.adversarial = images.detach().clone()
        self.active = torch.arange(len(images), device=images.device)
        self.mean = 0.001 * torch.randn_like(images)
        reach = ball.radius / images[0].numel() ** 0.5 if isinstance(ball, L2) else ball.radius
        self.edge = min(max(reach / 2, 1e-6), 0.25)

    def point(self, mean: Tensor) -> Images:
        """Return the image for ``mean``, one row for each active image."""
        images = self.images[self.active]
        centre = torch.atanh(2 * images.clamp(self.edge, 1 - self.edge) - 1)
        return self.ball.project((torch.tanh(centre + mean) + 1) / 2, images)

    def step(self, population: int, rate: float) -> None:
        """Move the mean towards points that fool the model."""
        mean, labels = self.mean[self.active], self.labels[self.active]
        seeds = fresh_seeds(population)
        rewards = torch.stack(
            [
                self._reward(self.point(mean + self.spread * _direction(mean, s)), labels)
                for s in seeds
            ]
        )
        gain = (rewards - rewards.mean(0)) / rewards.std(0).clamp_min(1e-8)
        # Directions are drawn again from their seeds: a population does not fit into memory.
        for seed, share in zip(seeds, gain, strict=True):
            weight = rate / (population * self.spread) * per_image(share, mean)
            mean += weight * _direction(mean, seed)
        self.mean[self.active] = mean

    def _reward(self, points: Images, labels: Labels) -> Tensor:
        with autocast_to(self.precision, points.device):
            log_p = F.log_softmax(logits_of(self.model, points).float(), 1)
        return -0.5 * (-margin(log_p, labels)).clamp_min(0)

    def check(self) -> None:
        """Keep the centre, and let images leave whose label is outvoted there."""
        point = self.point(self.mean[self.active])
        self.adversarial[self.active] = point
        eot, seeds = EOTLoss(self.model, margin), fresh_seeds(_CHECK_DRAWS)
        self.active = self.active[~eot.is_outvoted(point, self.labels[self.active], seeds)]


def _direction(like: Tensor, seed: int) -> Tensor:
    with isolated_rng(seed):
        return torch.randn_like(like)
