"""NAttack: learns where adversarial examples lie from a model's answers alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_attack
from smoothinfer.attacks.eot import Landscape, fresh_seeds, searching
from smoothinfer.attacks.losses import margin
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import L2, Ball
from smoothinfer.numerics.precision import computing
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels

_LOOK, _LOOKING_DRAWS = 10, 32


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
    """Climb the mean m of x + clip(g(g^-1(x) + m + s e) - x, ball), e ~ N(0, I), by NES.

    g = (tanh + 1) / 2. Each step draws ``population`` e_j, rewards each by
    -max(log p_y - max_{j != y} log p_j, 0) / 2, standardises the rewards to A_j over the
    population, and moves m by rate / (population * s) * sum_j A_j e_j. Every query has noise of its
    own. Every 10 steps the centre is tried on 32 fresh draws; an image leaves when its label is
    behind another class by 2 standard errors. At black and white, where g is flat, g^-1 starts half
    a radius further inside: else such pixels would hardly move.

    Costs ``steps * population`` queries an image.

    Args:
        model: any module from images to logits, in eval mode; only its answers are used.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `Linf` or `L2`, its radius in pixel units.
        steps, population: steps and queries of each.
        spread: s, in units of g^-1.
        rate: of m.
        precision: ``"bf16"``, ``"fp32"``, or ``"auto"``: of the queries, in which rounding drowns,
            bfloat16 where the device multiplies it in hardware; of the tries, see `searching`.
        generator: source of e and, through a seed, of the model's noise.

    Raises:
        InputError: images or labels are malformed, or a number is out of range.

    Source: Li et al. 2019, *NATTACK*, arXiv 1905.00441.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images = torch.rand(3, 1, 2, 2)
    >>> moved = nattack(net, images, torch.tensor([0, 1, 0]), Linf(0.1), steps=2, population=8)
    >>> bool(((moved - images).abs() <= 0.1 + 1e-6).all())
    True
    """
    check_attack(model, images, labels, ball, steps=steps)
    if population < 2 or not (spread > 0 and rate > 0):
        raise InputError(
            f"population {population} must be >= 2, spread {spread} and rate {rate} positive"
        )
    if len(images) == 0:
        return images
    with isolated_rng(draw_seed(generator)), searching(model, images, precision):
        search = _Search(model, images, labels, ball, spread, precision)
        for step in range(1, steps + 1):
            search.step(population, rate)
            if step % _LOOK == 0 or step == steps:
                search.look()
            if len(search.active) == 0:
                break
    return search.found


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
        self.found = images.detach().clone()
        self.active = torch.arange(len(images), device=images.device)
        self.mean = 0.001 * torch.randn_like(images)
        reach = ball.radius / images[0].numel() ** 0.5 if isinstance(ball, L2) else ball.radius
        self.edge = min(max(reach / 2, 1e-6), 0.25)

    def point(self, mean: Tensor) -> Images:
        """Return the image that ``mean`` stands for, one row for each active image."""
        images = self.images[self.active]
        centre = torch.atanh(2 * images.clamp(self.edge, 1 - self.edge) - 1)
        return self.ball.project((torch.tanh(centre + mean) + 1) / 2, images)

    def step(self, population: int, rate: float) -> None:
        """Move the mean towards what fools the model."""
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
            mean += (
                rate / (population * self.spread) * share.view(-1, 1, 1, 1) * _direction(mean, seed)
            )
        self.mean[self.active] = mean

    def _reward(self, points: Images, labels: Labels) -> Tensor:
        with computing(self.precision, points.device):
            log_p = F.log_softmax(self.model(points).float(), 1)
        return -0.5 * (-margin(log_p, labels)).clamp_min(0)

    def look(self) -> None:
        """Keep the centre, and let go the images whose label is outvoted there."""
        point = self.point(self.mean[self.active])
        self.found[self.active] = point
        land = Landscape(self.model, margin)
        seeds = fresh_seeds(_LOOKING_DRAWS)
        self.active = self.active[~land.outvoted(point, self.labels[self.active], seeds)]


def _direction(like: Tensor, seed: int) -> Tensor:
    with isolated_rng(seed):
        return torch.randn_like(like)
