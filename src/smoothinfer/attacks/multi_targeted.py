"""Multi-targeted PGD: one run towards every other class, the best of them kept."""

import torch
from torch import Tensor, nn

from smoothinfer.attacks.checks import attack_precision, check_counts
from smoothinfer.attacks.eot import BestPoints, EOTLoss, fresh_seeds
from smoothinfer.attacks.gate import gated
from smoothinfer.attacks.losses import lead_of, margin
from smoothinfer.attacks.projected_gradient import pgd
from smoothinfer.errors import check_labels
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.randomness import draw_seed, isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Labels

_JUDGING_DRAWS = 16


@gated
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
    """For every class t but the label maximise z_t - z_y by PGD; keep the largest mean margin.

    The runs are judged on at least 16 fresh draws, the same for all.

    Args:
        model, images, labels, ball, generator: as for `pgd`.
        steps, step_size, draws, restarts: of each run, see `pgd`; a step is 2.5 radii / steps
            by default.
        targets: number of target classes, those with the largest logits on the image itself; all
            by default.
        precision: of the gradients as for `pgd`, of the judging as for `attack_precision`.

    Raises:
        InputError: images or labels are malformed, or a number is out of range.

    Source: Gowal et al. 2019, *An Alternative Surrogate Loss for PGD-based Adversarial Testing*,
    arXiv 1910.09338.

    >>> from smoothinfer.numerics.balls import Linf
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> multitargeted(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2]), Linf(0.1)).shape
    torch.Size([3, 1, 2, 2])
    """
    check_counts(steps=steps, draws=draws, targets=targets)
    size = 2.5 * ball.radius / steps if step_size is None else step_size
    if len(images) == 0:  # PGD checks the numbers that are its own
        return pgd(model, images, labels, ball, steps=steps, step_size=size, restarts=restarts)
    with isolated_rng(draw_seed(generator)), attack_precision(model, images, precision):
        order = order_classes(model, images, labels, draws)[:, :targets]
        seeds = fresh_seeds(max(draws, _JUDGING_DRAWS))
        best = BestPoints(EOTLoss(model, margin), images, labels, seeds)
        for target in order.unbind(1):
            points = pgd(
                model,
                images,
                labels,
                ball,
                steps=steps,
                step_size=size,
                draws=draws,
                restarts=restarts,
                loss=lead_of(target),
                precision=precision,
            )
            best.offer(points)
    return best.points


@torch.no_grad()
def order_classes(model: nn.Module, images: Images, labels: Labels, draws: int) -> Tensor:
    """Return the other classes of each image, (N, K - 1), the most likely first."""
    logits = torch.stack([logits_of(model, images) for _ in range(draws)]).mean(0)
    check_labels(labels, images, logits.shape[1])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.argsort(1, descending=True)[:, :-1]
