"""Checks 1 to 4: can the gradients be used, and do they follow the model?"""

import copy
import math

import torch
from torch import Tensor, nn

from smoothinfer.attacks.gradients import mean_gradient, single_gradient
from smoothinfer.attacks.losses import ATTACK_LOSSES
from smoothinfer.evaluation.audit.context import BATCH, AuditContext
from smoothinfer.evaluation.audit.finding import (
    ALARM,
    CLEAR,
    NOTE,
    SKIPPED,
    Finding,
    check,
    judge,
    worse,
)
from smoothinfer.numerics.balls import L2
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import attack_mode
from smoothinfer.types import Images, Logits


@check(
    1,
    "usable gradients",
    "gradient of the cross-entropy and of DLR at every image",
    "any image has a gradient that is not a number, or zero (in 8 draws)",
)
def gradients(context: AuditContext) -> Finding:
    """No image may have a gradient that is zero or not a number."""
    # Where the label has lost by far, DLR is flat by definition: only correct images count.
    right = context.clean().nonzero().flatten()[: context.effort.few]
    images, labels = context.images[right], context.labels[right]
    if len(images) == 0:
        return gradients.finding(SKIPPED, "no image is right", "There is nothing to attack.")
    with torch.no_grad(), isolated_rng(context.seed):
        answers = logits_of(context.model, images)
    classes = answers.shape[1]
    if answers.min() >= 0 and (answers.sum(1) - 1).abs().amax() < 1e-4:
        return gradients.finding(
            ALARM,
            "the outputs are probabilities",
            "The model returns probabilities where attacks expect logits: their losses saturate. "
            "Return logits, or log-probabilities.",
        )
    bad: dict[str, float] = {}
    with attack_mode(context.model), isolated_rng(context.seed):
        for name in ("cross_entropy", "dlr" if classes > 2 else "margin"):
            # DLR is flat by definition where a draw puts the label third: one draw in eight
            # with a gradient is enough.
            draws = 8 if context.random else 1
            try:
                gradients_of = [
                    single_gradient(context.model, images, labels, ATTACK_LOSSES[name]).flatten(1)
                    for _ in range(draws)
                ]
            except RuntimeError as error:
                return gradients.finding(ALARM, "no gradient", f"The model has none: {error}")
            flat = torch.stack(gradients_of)
            unusable = (flat == 0).all(2).all(0) | ~flat.isfinite().all(2).all(0)
            bad[name] = 100 * float(unusable.float().mean())
    measured = ", ".join(f"{name} {share:.1f} % of images" for name, share in bad.items())
    if any(bad.values()):
        return gradients.finding(
            ALARM,
            measured,
            "Some gradients are zero or not numbers: attacks that follow them are blind there, and "
            "images that they fail to break may still be weak. Look for saturated, quantised or "
            "detached outputs, and attack without gradients.",
        )
    return gradients.finding(CLEAR, measured, "Every image has a gradient.")


@check(
    2,
    "randomness",
    "repeats of one batch, in reverse order, and with gradients; normalised logits",
    "the place in the batch or computing gradients changes them, or votes are of a model "
    "without noise (a difference of more than 1e-4 is a note)",
)
def randomness(context: AuditContext) -> Finding:
    """Does the model repeat its answers, whoever asks?"""
    with isolated_rng(context.seed):
        return _randomness(context)


def _randomness(context: AuditContext) -> Finding:
    images = context.images[context.few()][:BATCH]
    draws = 16 if context.random else 5
    with torch.no_grad():
        answers = torch.stack([_normalised(logits_of(context.model, images)) for _ in range(draws)])
        turned = torch.stack(
            [_normalised(logits_of(context.model, images.flip(0))).flip(0) for _ in range(draws)]
        )
    with_grad = torch.stack(
        [
            _normalised(logits_of(context.model, images.clone().requires_grad_())).detach()
            for _ in range(draws)
        ]
    )
    differs = float((answers.amax(0) - answers.amin(0)).amax())
    measured = f"largest difference {differs:.2g}"
    for other, why in (
        (with_grad, "its answers change when gradients are computed"),
        (turned, "an answer depends on the place in the batch"),
    ):
        if apart := _apart(answers, other, random=differs > _SAME):
            return randomness.finding(
                ALARM,
                f"{measured}; {why}, {apart}",
                f"Something is hidden: {why}. The attack sees another model than the one that is "
                "measured (noise switched on or off, or a memorised seed).",
            )
    if differs > _SAME:
        return randomness.finding(
            NOTE,
            measured,
            "The model is random: this audit averages gradients over draws and votes again on "
            "fresh ones. A figure of one pass under one attack needs the same care.",
        )
    in_training = _random_in_training(context.model, images)
    if in_training > _SAME and context.voted:
        return randomness.finding(
            ALARM,
            f"{measured}; in training mode {in_training:.2g}",
            "The votes are of a model without randomness: its noise is on in training mode and "
            "off in eval mode, where it should defend.",
        )
    if in_training > _SAME:
        return randomness.finding(
            NOTE,
            f"{measured}; in training mode {in_training:.2g}",
            "The model is deterministic, but not in training mode. Dropout and the like are so by "
            "design; noise that should defend must stay on in eval mode.",
        )
    return randomness.finding(CLEAR, measured, "The model is deterministic.")


_SAME = 1e-4
_STANDARD = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def _apart(one: Tensor, two: Tensor, random: bool) -> str:
    """Say how far two sets of answers (draws, N, K) are apart, if that is beyond chance.

    For random models the means (in standard errors) and the spreads over the draws are compared,
    each over all images and classes: over thousands of numbers chance is a few per cent at most.
    """
    if not random:
        apart = float((one[0] - two[0]).abs().amax())
        return f"by {apart:.2g}" if apart > _SAME else ""
    spreads = [each.var(0) + _SAME**2 for each in (one, two)]
    error = (spreads[0] + spreads[1]) / len(one)
    shift = float(((one.mean(0) - two.mean(0)).square() / error).mean().sqrt())
    wider = float((spreads[1].mean() / spreads[0].mean()).log().abs())
    if shift > 2:
        return f"by {shift:.1f} standard errors"
    return f"{math.exp(wider / 2):.1f} times as random" if wider > 1 else ""


def _random_in_training(model: nn.Module, images: Images) -> float:
    """Return how much a copy's answers differ in training mode, its standard layers aside."""
    try:
        copied = copy.deepcopy(model)
    except Exception:  # a third-party module may hold anything
        return 0.0
    for part in copied.modules():
        part.training = not isinstance(part, _STANDARD)
    with torch.no_grad():
        one, two = (_normalised(copied(images[:8])) for _ in range(2))
    return float((one - two).abs().amax())


def _normalised(logits: Logits) -> Tensor:
    return logits / logits.norm(dim=1, keepdim=True).clamp_min(1e-12)


class _Readout(nn.Module):
    """Two classes, divided by a hyperplane in the space of the model's answers, one per image."""

    def __init__(self, model: nn.Module, weight: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.model, self.weight, self.threshold = model, weight, threshold
        self.training = False

    def forward(self, images: Images) -> Logits:
        score = (logits_of(self.model, images) * self.weight).sum(1) - self.threshold
        return torch.stack([torch.zeros_like(score), score], 1)


@check(
    3,
    "binarisation",
    "problems with a known solution in the ball, made from the model's answers",
    "the attack solves fewer than 95 %",
)
def binarisation(context: AuditContext) -> Finding:
    """An attack must solve problems that surely have a solution."""
    rows = slice(0, min(24, len(context.images)))
    images = context.images[rows]
    draws, inner = (16 if context.random else 1), 48
    with torch.no_grad(), isolated_rng(context.seed):
        far = context.ball.project(
            images + 4 * context.ball.radius * torch.randn_like(images).sign(), images
        )
        near = [images + (context.ball.random(images) - images) * 0.5 for _ in range(inner)]
        inside = torch.stack([_answers(context.model, x, draws) for x in [images, *near]])
        outside = _answers(context.model, far, draws)
        weight = outside - inside.mean(0)
        weight = weight / (inside.var(0) + 1e-3 * inside.var() + 1e-12)
        highest, beyond = (inside * weight).sum(2).amax(0), (outside * weight).sum(1)
        solvable = beyond > highest
        readout = _Readout(context.model, weight, 0.5 * (highest + beyond))
    if solvable.float().mean() < 0.5:
        return binarisation.finding(
            SKIPPED,
            f"{100 * solvable.float().mean():.0f} % of the problems could be posed",
            "The model's answers hardly move within the ball: no problem with a known solution "
            "could be made of them.",
        )
    zeros = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    attack = context.pgd(2 * context.steps, draws=max(context.draws, draws), loss="margin")
    with isolated_rng(context.seed):
        adversarial = attack(readout, images, zeros, context.ball)
        with torch.no_grad():
            score = torch.stack([readout(adversarial)[:, 1] for _ in range(2 * draws)]).mean(0)
    success = 100 * float((score > 0)[solvable].float().mean())
    measured = f"success {success:.0f} % on {int(solvable.sum())} images"
    if success < 95:
        return binarisation.finding(
            ALARM,
            measured,
            "The attack misses solutions that are known to exist: it is too weak for this model, "
            "and its failures elsewhere prove nothing.",
        )
    return binarisation.finding(CLEAR, measured, "The attack finds solutions where there are some.")


def _answers(model: nn.Module, images: Images, draws: int) -> Logits:
    return torch.stack([logits_of(model, images) for _ in range(draws)]).mean(0)


@check(
    4,
    "averaging over draws",
    "PGD with more and more draws in a gradient; cosine of two independent gradients of 16 draws",
    "the most draws break at least 1 point more (McNemar p < 0.001), or the median cosine < 0.5",
    static="There is nothing to average over.",
)
def averaging(context: AuditContext) -> Finding:
    """More draws in a gradient must not help any more."""
    measured, most = [], context.effort.eot[-1]
    for draws in context.effort.eot:
        if draws <= context.draws:
            direct = draws == context.draws
            kept = (
                context.attacked()
                if direct
                else context.is_correct(context.pgd_with(draws), "fresh")
            )
            measured.append(f"{draws} draws: {100 * kept.float().mean():.1f} %")
    drop = worse(*context.compare_attack(f"eot {most}", context.pgd(draws=most)))
    part = context.few()
    images, labels = context.images[part], context.labels[part]
    with attack_mode(context.model), isolated_rng(context.seed):
        one, two = (
            mean_gradient(context.model, images, labels, ATTACK_LOSSES["cross_entropy"], 16)
            for _ in range(2)
        )
    direction = L2(1.0).ascend  # the gradient of a confident network is too small to be squared
    cosine = float((direction(one) * direction(two)).flatten(1).sum(1).median())
    measured.append(f"{most} draws break {drop.points:.1f} points more; cosine {cosine:.2f}")
    alarm = (
        "The gradient is mostly noise at this number of draws: accuracy under it flatters the "
        "model. Average over more draws before quoting a figure."
    )
    if cosine < 0.5:
        return averaging.finding(ALARM, "; ".join(measured), alarm)
    clear = "Enough draws: more change little."
    return judge(averaging, [drop], "; ".join(measured), alarm, clear)
