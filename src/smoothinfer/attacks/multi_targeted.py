"""Multi-targeted PGD: one climb towards every other class, the best of them kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import check_attack
from smoothinfer.attacks.eot import Landscape, fresh_seeds, searching
from smoothinfer.attacks.losses import margin
from smoothinfer.attacks.projected_gradient import pgd
from smoothinfer.errors import check_labels
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.types import Images, Labels, Logits

_JUDGING_DRAWS = 16


def multitargeted(
    model: nn.Module,
    images: Images,
    labels: Labels,
    ball: Ball,
    *,
    steps: int = 20,
    step_size: float | None = None,
    draws: int = 1,
    targets: int | None = None,
    restarts: int = 1,
    precision: str = "auto",
    generator: torch.Generator | None = None,
) -> Images:
    """For every class t but the label climb z_t - z_y by PGD; keep the largest mean margin.

    Which climb won is judged on at least 16 fresh draws, the same for all.

    Args:
        model: any module from images to logits, random or not, in eval mode.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,) true classes.
        ball: `Linf` or `L2`, its radius in pixel units.
        steps, step_size, draws, restarts: of each climb, see `pgd`; a step is 2.5 radii / steps
            by default.
        targets: only the so many classes that come next to the label on the image itself; all
            by default.
        precision: of the gradients as for `pgd`, of the judging as `searching` says.
        generator: source of the starts and, through a seed, of the model's noise.

    Raises:
        InputError: images or labels are malformed, or a number is out of range.

    Source: Gowal et al. 2019, *An Alternative Surrogate Loss for PGD-based Adversarial Testing*,
    arXiv 1910.09338.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> multitargeted(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2]), Linf(0.1)).shape
    torch.Size([3, 1, 2, 2])
    """
    check_attack(model, images, labels, ball, steps=steps, targets=targets)
    size = 2.5 * ball.radius / steps if step_size is None else step_size
    if len(images) == 0:
        return images
    with isolated_rng(draw_seed(generator)), searching(model, images, precision):
        order = _order(model, images, labels, draws)[:, :targets]
        seeds = fresh_seeds(max(draws, _JUDGING_DRAWS))
        land, best = Landscape(model, margin), images
        highest = land.see(best, labels, seeds).value
        for target in order.unbind(1):
            moved = pgd(
                model,
                images,
                labels,
                ball,
                steps=steps,
                step_size=size,
                draws=draws,
                restarts=restarts,
                objective=_Lead(target),
                precision=precision,
            )
            value = land.see(moved, labels, seeds).value
            better = value > highest
            best = torch.where(better.view(-1, 1, 1, 1), moved, best)
            highest = torch.where(better, value, highest)
    return best


class _Lead:
    """z_t - z_y, with a target t for each row."""

    def __init__(self, targets: Labels) -> None:
        self.targets = targets

    def __call__(self, logits: Logits, labels: Labels) -> Tensor:
        rows = torch.stack([self.targets, labels], 1)
        target, label = logits.gather(1, rows).float().unbind(1)
        return target - label


@torch.no_grad()
def _order(model: nn.Module, images: Images, labels: Labels, draws: int) -> Tensor:
    """Return the other classes of each image, (N, K - 1), the likeliest first."""
    logits = torch.stack([model(images) for _ in range(draws)]).mean(0)
    check_labels(labels, images, logits.shape[1])
    away = logits.scatter(1, labels[:, None], -torch.inf)
    return away.argsort(1, descending=True)[:, :-1]
