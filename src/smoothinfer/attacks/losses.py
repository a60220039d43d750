"""Losses that an attack maximises, and pools that turn many draws into one answer."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from smoothinfer.errors import InputError, check_labels, choose
from smoothinfer.numerics.recording import is_recording
from smoothinfer.types import Labels, Logits

AttackLoss = Callable[[Logits, Labels], Tensor]
Pool = Callable[[Tensor], Tensor]


def at_least_float(values: Tensor) -> Tensor:
    """Return ``values`` in float32, or in float64 if they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    """-log softmax(logits)[label] = log(1 + exp(log sum_{j != y} exp z_j - z_y)), (N,).

    In double precision and in the second form, which does not cancel: with float32's own
    cross-entropy a lead of 17 has lost the label's logit, one of 104 the whole gradient.

    >>> round(cross_entropy(torch.zeros(1, 4), torch.tensor([2])).item(), 4)  # log 4
    1.3863
    >>> cross_entropy(torch.tensor([[200.0, 0.0]]), torch.tensor([0])).item() > 0
    True
    """
    exact = logits.double()
    right = exact.gather(1, labels[:, None]).squeeze(1)
    others = exact.scatter(1, labels[:, None], -torch.inf).logsumexp(1)
    return F.softplus(others - right, threshold=700)


def loss_of(loss: AttackLoss, logits: Logits, labels: Labels) -> Tensor:
    """Return ``loss`` of the logits, (N,): in float32 unless the loss is the package's own.

    A user's loss may hold weights of classes in float32, which do not go with float64.
    """
    ours = getattr(loss, "__module__", "").startswith("smoothinfer.")
    return loss(logits if ours else logits.float(), labels)


def margin(logits: Logits, labels: Labels) -> Tensor:
    """max over j != y of z_j, minus z_y: positive where the label has lost, (N,).

    Source: Carlini, Wagner, *Towards Evaluating the Robustness of Neural Networks*, 2017.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0])).item()
    -1.0
    """
    right = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return at_least_float(others.amax(1) - right)


def dlr(logits: Logits, labels: Labels) -> Tensor:
    """-(z_y - max_{j != y} z_j) / (z_(1) - z_(3)), free of the logits' scale and shift, (N,).

    Source: Croce, Hein, *Reliable Evaluation of Adversarial Robustness*, 2020, arXiv 2003.01690.

    Raises:
        InputError: there are fewer than three classes.

    >>> dlr(torch.tensor([[4.0, 2.0, 0.0]]), torch.tensor([0])).item()
    -0.5
    """
    if logits.shape[1] < 3:
        raise InputError("the DLR loss needs at least 3 classes; use 'margin'")
    first, _, third = at_least_float(logits).topk(3, dim=1).values.unbind(1)
    return margin(logits, labels) / (first - third).clamp_min(1e-12)


def divergence_from(clean: Tensor) -> AttackLoss:
    """Return the loss KL(clean || softmax(logits)), (N,), which uses no label.

    Args:
        clean: (N, K) probabilities of the unmoved images.

    Source: Zhang et al. 2019, *TRADES*, arXiv 1901.08573.

    >>> loss = divergence_from(torch.tensor([[0.5, 0.5]]))
    >>> loss(torch.zeros(1, 2), torch.tensor([0])).item()
    0.0
    """

    def divergence(logits: Logits, labels: Labels) -> Tensor:
        del labels
        return F.kl_div(logits.double().log_softmax(1), clean.double(), reduction="none").sum(1)

    return divergence


def lead_of(targets: Labels) -> AttackLoss:
    """Return the loss z_t - z_y, with a target t for each image, (N,).

    >>> lead_of(torch.tensor([1]))(torch.tensor([[3.0, 1.0]]), torch.tensor([0])).item()
    -2.0
    """

    def lead(logits: Logits, labels: Labels) -> Tensor:
        rows = torch.stack([targets, labels], 1)
        target, label = at_least_float(logits.gather(1, rows)).unbind(1)
        return target - label

    return lead


def towards(logits: Logits, targets: Labels) -> Tensor:
    """log softmax(logits)[target], which a targeted attack maximises, (N,)."""
    return -cross_entropy(logits, targets)


ATTACK_LOSSES: dict[str, AttackLoss] = {
    "cross_entropy": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}


def checked_loss(loss: str | AttackLoss) -> AttackLoss:
    """Return a loss by name or as it is, which checks the labels against the logits at first use.

    Once is enough for an attack, whose labels stay the same, and each check waits for the device.

    Raises:
        InputError: the name is unknown; or, at first use, a label has no logit.

    >>> checked_loss("margin")(torch.zeros(1, 2), torch.tensor([5]))
    Traceback (most recent call last):
    smoothinfer.errors.InputError: labels range over [5, 5], but the model has 2 classes (0..1)
    """
    function = choose("loss", ATTACK_LOSSES, loss) if isinstance(loss, str) else loss
    checked = False

    def check_then_compute(logits: Logits, labels: Labels) -> Tensor:
        nonlocal checked
        if not checked and not is_recording():
            check_labels(labels, logits, logits.shape[1])
            checked = True
        return loss_of(function, logits, labels)

    return check_then_compute


def log_mean_probability(draws: Tensor, sharpness: float = 1.0) -> Tensor:
    """log((1/M) sum_i softmax(sharpness * logits_i)), without underflow, (N, K).

    Sharpness 1 is the soft vote, infinite sharpness the hard vote: in between lies a surrogate of
    the hard vote that has a gradient where images are undecided.

    >>> log_mean_probability(torch.zeros(3, 1, 2)).exp().tolist()
    [[0.5, 0.5]]
    """
    return (sharpness * at_least_float(draws)).log_softmax(2).logsumexp(0) - math.log(len(draws))


def log_mean_rank_weight(draws: Tensor, sharpness: float = 4.0) -> Tensor:
    """log((1/M) sum_i 2^-r_i) with the soft rank r_y = sum_{j != y} sigmoid(s (z_j - z_y)), (N, K).

    A surrogate of the vote that gives 2^-r to the class of rank r.

    >>> log_mean_rank_weight(torch.tensor([[[9.0, 0.0, -9.0]]])).exp().round(decimals=3).tolist()
    [[1.0, 0.5, 0.25]]
    """
    draws = at_least_float(draws)
    gaps = draws[..., None, :] - draws[..., :, None]  # z_j - z_y at [y, j]
    rank = (sharpness * gaps).sigmoid().sum(-1) - 0.5  # its own sigmoid(0) is 1/2
    return (-math.log(2) * rank).logsumexp(0) - math.log(len(draws))


# (M, N, K) logits of M draws -> (N, K) scores; None takes the mean of each draw's loss (EoT).
POOLS: dict[str, Pool | None] = {
    "mean": None,
    "pooled": log_mean_probability,
    "vote": partial(log_mean_probability, sharpness=4.0),
    "rank": log_mean_rank_weight,
}
