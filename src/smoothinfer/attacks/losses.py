"""What an attacker climbs: ``(logits, labels) -> one number per image``, larger is worse for us."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.types import Labels, Logits

Objective = Callable[[Logits, Labels], Tensor]


def cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """-log softmax(logits)[label], (N,).

    >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # log 4
    1.3863
    """
    return F.cross_entropy(logits.float(), labels, reduction="none")


def margin(logits: Logits, labels: Labels) -> Tensor:
    """max over j != y of z_j, minus z_y: positive where the label has lost, (N,).

    Source: Carlini, Wagner, *Towards Evaluating the Robustness of Neural Networks*, 2017.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).item()
    -1.0
    """
    right = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (others.amax(1) - right).float()


def dlr(logits: Logits, labels: Labels) -> Tensor:
    """-(z_y - max_{j != y} z_j) / (z_(1) - z_(3)), free of the logits' scale and shift, (N,).

    Source: Croce, Hein, *Reliable Evaluation of Adversarial Robustness*, 2020, arXiv 2003.01690.

    Raises:
        InputError: there are fewer than three classes.

    >>> dlr(torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([0])).item()
    -0.5
    """
    if logits.shape[1] < 3:
        raise InputError("the DLR objective needs at least 3 classes; use 'margin'")
    first, _, third = logits.float().topk(3, dim=1).values.unbind(1)
    return margin(logits, labels) / (first - third).clamp_min(1e-12)


def divergence_from(clean: Tensor) -> Objective:
    """Return the objective KL(clean || softmax(logits)), (N,), which looks at no label.

    Args:
        clean: (N, K) probabilities of the images where they were, one row for each.

    Source: Zhang et al. 2019, *TRADES*, arXiv 1901.08573.

    >>> goal = divergence_from(torch.tensor([[0.5, 0.5]]))
    >>> goal(torch.zeros(1, 2), torch.tensor([0])).item()
    0.0
    """

    def divergence(logits: Logits, labels: Labels) -> Tensor:
        del labels
        return F.kl_div(logits.float().log_softmax(1), clean, reduction="none").sum(1)

    return divergence


OBJECTIVES: dict[str, Objective] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}
