"""Losses of training: ``(model, images, labels, attack, ...) -> scalar``."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.errors import InputError, plain_int
from smoothinfer.training.certified_losses import (
    consistency,
    macer,
    smooth_adversarial,
    smooth_mix,
    stability,
)
from smoothinfer.training.crafting import Craft, craft, sum_of
from smoothinfer.types import Images, Labels, Logits

Loss = Callable[..., Tensor]


def natural(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: Craft | None = None,
    draws: int = 1,
) -> Tensor:
    """(1/M) sum_i CE(f_i(x), y), the mean over the batch, under M = ``draws`` draws of the noise.

    With Gaussian noise at the inputs it is the training of Cohen et al. 2019.

    Args:
        model: in training mode.
        images, labels: (N, C, H, W) in [0, 1] and (N,).
        attack: not used.
        draws: M, at least 1.

    Raises:
        InputError: ``draws`` is no whole number of at least 1.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> natural(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([])
    """
    del attack
    plain_int("draws", draws, at_least=1)
    return sum_of(F.cross_entropy(model(images), labels) for _ in range(draws)) / draws


def adversarial(
    model: nn.Module, images: Images, labels: Labels, attack: Craft | None = None, w: float = 0.5
) -> Tensor:
    """(1 - w) CE(f(x), y) + w CE(f(x'), y), with x' = attack(f, x, y) and fresh noise in each term.

    Args:
        model: in training mode; x' is crafted in eval mode with the noise on.
        images: (N, C, H, W), pixels in [0, 1].
        labels: (N,).
        attack: (model, images, labels) -> adversarial images.
        w: weight of the adversarial term, in [0, 1]; 1 is Madry's training.

    Raises:
        InputError: ``w`` is outside [0, 1] or ``attack`` is missing.

    Source: Nemcovsky et al. 2019, equation (6); Madry et al. 2018 for w = 1.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> adversarial(net, images, labels, lambda model, x, y: x, w=0.5).shape
    torch.Size([])
    """
    if not 0 <= w <= 1:
        raise InputError(f"w must lie in [0, 1], not {w}")
    adversarial_images = craft(_needed(attack, "adversarial"), model, images, labels)
    hard = F.cross_entropy(model(adversarial_images), labels)
    if w == 1:
        return hard
    return (1 - w) * F.cross_entropy(model(images), labels) + w * hard


def trades(
    model: nn.Module, images: Images, labels: Labels, attack: Craft | None = None, beta: float = 6.0
) -> Tensor:
    """CE(f(x), y) + beta / B sum KL(p(x) || p(x')), gradients through both probabilities.

    Published with `kl_pgd` of 10 steps of 0.007, which maximises the divergence. A noisy model
    draws its noise afresh in each of the three passes, so the divergence never vanishes: it also
    makes the answers of different draws more alike.

    Args:
        model, images, labels, attack: as for `adversarial`.
        beta: weight of the divergence, 1/lambda in the paper.

    Raises:
        InputError: ``beta`` is negative or ``attack`` is missing.

    Source: Zhang et al. 2019, arXiv 1901.08573.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> trades(net, images, labels, lambda model, x, y: x).shape
    torch.Size([])
    """
    adversarial_images = craft(_needed(attack, "trades", beta), model, images, labels)
    natural_part = F.cross_entropy(model(images), labels)
    divergence = _divergence(model(adversarial_images).float(), model(images).float())
    return natural_part + beta * divergence.mean()


def mart(
    model: nn.Module, images: Images, labels: Labels, attack: Craft | None = None, beta: float = 5.0
) -> Tensor:
    """Boosted CE at x' plus beta times KL(p(x) || p(x')) weighted by 1 - p_y(x).

    -log p_y(x') - log(1.0001 - max_{j != y} p_j(x')) + beta mean[KL (1.0000001 - p_y(x))], with
    gradients through every factor.

    Args:
        model, images, labels, attack: as for `trades`; published with PGD on the cross-entropy.
        beta: weight of the divergence.

    Raises:
        InputError: ``beta`` is negative or ``attack`` is missing.

    Source: Wang et al. 2020, *Improving Adversarial Robustness Requires Revisiting Misclassified
    Examples*, ICLR.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> mart(net, images, labels, lambda model, x, y: x).shape
    torch.Size([])
    """
    adversarial_images = craft(_needed(attack, "mart", beta), model, images, labels)
    clean, hard = model(images).float(), model(adversarial_images).float()
    rows = labels[:, None]
    runner_up = hard.softmax(1).scatter(1, rows, 0.0).amax(1)
    boosted = F.cross_entropy(hard, labels) - (1.0001 - runner_up).log().mean()
    doubt = 1.0000001 - clean.softmax(1).gather(1, rows).squeeze(1)
    return boosted + beta * (_divergence(hard, clean) * doubt).mean()


def _divergence(adversarial: Logits, clean: Logits) -> Tensor:
    """KL(p(clean) || p(adversarial)) of each image, (N,)."""
    log_p, log_q = clean.log_softmax(1), adversarial.log_softmax(1)
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)


def _needed(attack: Craft | None, loss: str, beta: float = 0.0) -> Craft:
    if attack is None:
        raise InputError(f"the loss {loss} needs an attack")
    if not beta >= 0:
        raise InputError(f"beta must not be negative, not {beta}")
    return attack


LOSSES: dict[str, Loss] = {
    "natural": natural,
    "adversarial": adversarial,
    "trades": trades,
    "mart": mart,
    "consistency": consistency,
    "stability": stability,
    "macer": macer,
    "smooth_adversarial": smooth_adversarial,
    "smooth_mix": smooth_mix,
}
