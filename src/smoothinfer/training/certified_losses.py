"""Losses whose networks are certified: their answers shall agree under the noise of the pixels.

All of them draw the noise of the model, whatever it is. Where one needs the same noise at several
points, a pass has a seed: the same seed draws the same noise.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.losses import cross_entropy, log_mean_probability
from smoothinfer.engine.members import run_seeded
from smoothinfer.errors import InputError, plain_float, plain_int
from smoothinfer.noise import Gaussian, NoisyModel
from smoothinfer.numerics.balls import L2, per_image
from smoothinfer.numerics.randomness import uniform
from smoothinfer.runtime.modes import attack_mode, eval_mode
from smoothinfer.training.crafting import Craft, bare_model, sum_of
from smoothinfer.types import Images, Labels


def consistency(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: Craft | None = None,
    draws: int = 2,
    weight: float = 10.0,
    entropy: float = 0.5,
) -> Tensor:
    """(1/M) sum_i [CE(f_i(x), y) + weight KL(F || F_i)] + entropy H(F), F_i = softmax f_i(x).

    F is the mean of F_1, ..., F_M: the answers of different draws of the noise are made alike, and
    their mean sure of itself.

    Args:
        model, images, labels, attack: as for `natural`.
        draws: M, at least 2.
        weight: of the divergence, lambda in the paper: 20 at sigma 0.25, 10 at 0.5 and 1.
        entropy: weight of H(F), eta in the paper.

    Raises:
        InputError: a number is out of range.

    Source: Jeong, Shin, *Consistency Regularization for Certified Robustness of Smoothed
    Classifiers*, NeurIPS 2020, arXiv 2006.04062.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 2))
    >>> consistency(net, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([])
    """
    del attack
    plain_int("draws", draws, at_least=2)
    plain_float("weight", weight, at_least=0)
    plain_float("entropy", entropy, at_least=0)
    logits = [model(images).float() for _ in range(draws)]
    log_each = torch.stack(logits).log_softmax(2)
    log_mean = log_each.logsumexp(0) - math.log(draws)
    divergence = (log_mean.exp() * (log_mean - log_each)).sum(2).mean()
    spread = -(log_mean.exp() * log_mean).sum(1).mean()
    right = sum_of(F.cross_entropy(each, labels) for each in logits) / draws
    return right + weight * divergence + entropy * spread


def stability(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: Craft | None = None,
    weight: float = 2.0,
) -> Tensor:
    """CE(f(x), y) + weight (1/N) sum_n sum_k -p_k(x) log p_k(x + noise), f without input noise.

    Args:
        model: a `NoisyModel`; any other has no input noise to leave out.
        images, labels, attack: as for `natural`.
        weight: of the cross-entropy between clean and noisy answers.

    Raises:
        InputError: the model has no input noise, or the weight is negative.

    Source: Li et al., *Certified Adversarial Robustness with Additive Noise*, NeurIPS 2019, arXiv
    1809.03113.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> noisy = NoisyModel(net, inputs=Gaussian(0.2))
    >>> stability(noisy, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])).shape
    torch.Size([])
    """
    del attack
    plain_float("weight", weight, at_least=0)
    noisy = bare_model(model)
    if not isinstance(noisy, NoisyModel) or noisy.inputs is None:
        raise InputError("the loss stability compares with the model without its input noise")
    clean = noisy.with_inputs(None)(images).float()
    between = -(clean.softmax(1) * model(images).float().log_softmax(1)).sum(1).mean()
    return F.cross_entropy(clean, labels) + weight * between


def macer(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: Craft | None = None,
    draws: int = 16,
    weight: float = 4.0,
    sharpness: float = 16.0,
    gamma: float = 8.0,
) -> Tensor:
    """-log F_y + weight sigma / 2 mean max(0, gamma - (Phi^-1(p_1) - Phi^-1(p_2))), F mean softmax.

    p_1 and p_2 are the two largest entries of the mean of softmax(sharpness z) over M draws; the
    second term is of images that F gets right, whose margin is finite: it enlarges their radius.

    Args:
        model: a `NoisyModel` with Gaussian noise on its inputs.
        images, labels, attack: as for `natural`.
        draws: M, k in the paper.
        weight: lambda: 12 at sigma 0.25, 4 at 0.5.
        sharpness: beta.
        gamma: radius, in units of sigma / 2, beyond which nothing is gained.

    Raises:
        InputError: the model has no Gaussian input noise, or a number is out of range.

    Source: Zhai et al., *MACER*, ICLR 2020, arXiv 2001.02378.

    >>> noisy = NoisyModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), inputs=Gaussian(0.2))
    >>> macer(noisy, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), draws=2).shape
    torch.Size([])
    """
    del attack
    plain_int("draws", draws, at_least=1)
    for name, value in (("weight", weight), ("sharpness", sharpness), ("gamma", gamma)):
        plain_float(name, value, at_least=0)
    noise = getattr(bare_model(model), "inputs", None)
    if not isinstance(noise, Gaussian):
        raise InputError("the loss macer needs Gaussian noise on the inputs, whose sigma it takes")
    logits = torch.stack([model(images).float() for _ in range(draws)])
    right = F.nll_loss(log_mean_probability(logits), labels)
    first, second = (sharpness * logits).softmax(2).mean(0).topk(2, dim=1).values.unbind(1)
    leader = (sharpness * logits).softmax(2).mean(0).argmax(1)
    inside = (first < 1) & (second > 0) & (leader == labels)
    safe = [torch.where(inside, each, 0.5).clamp(1e-6, 1 - 1e-6) for each in (first, second)]
    margin = torch.special.ndtri(safe[0]) - torch.special.ndtri(safe[1])
    short = (gamma - margin) * (inside & (margin <= gamma))
    return right + weight * noise.sigma / 2 * short.mean()


def smooth_adversarial(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: Craft | None = None,
    draws: int = 8,
    radius: float = 1.0,
    steps: int = 10,
) -> Tensor:
    """(1/M) sum_i CE(f_i(x'), y), x' from L2 PGD on -log (1/M) sum_i softmax_y f_i, the same draws.

    SmoothAdv: the noise of a batch is held over all steps of the attack and reused in training. The
    authors let the radius grow in the first ten epochs; here it is whole from the beginning.

    Args:
        model, images, labels, attack: as for `natural`.
        draws: M.
        radius: of the L2 ball, in pixel units.
        steps: of the attack, each of 2 radius / steps.

    Raises:
        InputError: a number is out of range.

    Source: Salman et al., *Provably Robust Deep Learning via Adversarially Trained Smoothed
    Classifiers*, NeurIPS 2019, arXiv 1906.04584.

    >>> noisy = NoisyModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), inputs=Gaussian(0.2))
    >>> images, labels = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])
    >>> smooth_adversarial(noisy, images, labels, draws=2, steps=2).shape
    torch.Size([])
    """
    del attack
    plain_int("draws", draws, at_least=1)
    plain_int("steps", steps, at_least=1)
    seeds = fresh_seeds(draws)
    *_, points = _path(model, images, labels, seeds, steps, 2 * radius / steps, L2(radius))
    logits = [run_seeded(model, points, seed).float() for seed in seeds]
    return sum_of(F.cross_entropy(each, labels) for each in logits) / draws


def smooth_mix(
    model: nn.Module,
    images: Images,
    labels: Labels,
    attack: Craft | None = None,
    draws: int = 2,
    weight: float = 5.0,
    steps: int = 4,
    step_size: float = 1.0,
    one_step: bool = False,
) -> Tensor:
    """(1/M) sum_i CE(f_i(x), y) + weight mean 1[F(x) is right] KL(t || f_i(x_mix)), same draws.

    x_mix = (1 - l) x + l x~ and t = (1 - l) F(x) + l / K, with l uniform in [0, 1/2): between an
    image and an adversarial one far away the answer shall fall to the uniform one. x~ climbs
    -log F_y by steps of a fixed L2 length, free within [0, 1].

    Args:
        model, images, labels, attack: as for `natural`.
        draws: M.
        weight: eta in the paper.
        steps, step_size: of the climb, alpha in pixel units: 0.5, 1 and 2 at sigma 0.25, 0.5, 1.
        one_step: let the image after the first step take the place of x.

    Raises:
        InputError: a number is out of range.

    Source: Jeong et al., *SmoothMix*, NeurIPS 2021, arXiv 2111.09277. There the weight grows in the
    first ten epochs.

    >>> noisy = NoisyModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), inputs=Gaussian(0.2))
    >>> smooth_mix(noisy, torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0]), steps=2).shape
    torch.Size([])
    """
    del attack
    plain_int("draws", draws, at_least=1)
    plain_int("steps", steps, at_least=1)
    seeds = fresh_seeds(draws)
    path = _path(model, images, labels, seeds, steps, step_size)
    start, far = path[0] if one_step else images, path[-1]
    logits = torch.stack([run_seeded(model, start, seed).float() for seed in seeds])
    answer = logits.softmax(2).mean(0)
    share = per_image(uniform((len(images),), images) / 2, images)
    target = torch.lerp(answer, torch.full_like(answer, 1 / answer.shape[1]), share.flatten(1))
    mixed = torch.lerp(start, far, share)
    answers = torch.stack([run_seeded(model, mixed, seed).float() for seed in seeds])
    log_mixed = answers.log_softmax(2)
    divergence = F.kl_div(log_mixed, target.expand_as(log_mixed), reduction="none").sum(2)
    right = (answer.argmax(1) == labels).float()
    clean = sum_of(F.cross_entropy(each, labels) for each in logits) / draws
    return clean + weight * (right * divergence).mean()


def _path(
    model: nn.Module,
    images: Images,
    labels: Labels,
    seeds: Sequence[int],
    steps: int,
    step_size: float,
    ball: L2 | None = None,
) -> list[Images]:
    """Return the points of an L2 climb of -log mean probability of the label, under fixed draws."""
    bare, points, path = bare_model(model), images, []
    eot = EOTLoss(bare, cross_entropy, log_mean_probability)
    with eval_mode(bare), attack_mode(bare):
        for _ in range(steps):
            gradient = eot.evaluate_with_gradient(points, labels, seeds).gradient
            assert gradient is not None
            moved = points + step_size * L2(1.0).ascend(gradient).to(points)
            points = moved.clamp(0, 1) if ball is None else ball.project(moved, images)
            path.append(points.detach())
    return path
