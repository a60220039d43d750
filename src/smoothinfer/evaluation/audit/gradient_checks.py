"""Checks 1 to 4: can the gradients be used, and do they say what the model does?"""

from __future__ import annotations

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.attacks import OBJECTIVES
from smoothinfer.attacks.gradients import mean_gradient, single_gradient
from smoothinfer.evaluation.audit.finding import (
    ALARM,
    CLEAR,
    NOTE,
    SKIPPED,
    Check,
    Finding,
    judged,
    worse,
)
from smoothinfer.evaluation.audit.context import BATCH, Subject
from smoothinfer.runtime.modes import under_attack
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.types import Images, Logits


def gradients(subject: Subject) -> Finding:
    """Check 1: no image may have a gradient that is zero or not a number."""
    # Where the label has lost by far, DLR is flat by its own making: only right images count.
    right = subject.clean().nonzero().flatten()[: subject.effort.few]
    images, labels = subject.images[right], subject.labels[right]
    if len(images) == 0:
        return GRADIENTS.finding(SKIPPED, "no image is right", "There is nothing to attack.")
    with torch.no_grad(), isolated_rng(subject.seed):
        answers = subject.model(images)
    classes = answers.shape[1]
    if answers.min() >= 0 and (answers.sum(1) - 1).abs().amax() < 1e-4:
        return GRADIENTS.finding(
            ALARM,
            "the outputs are probabilities",
            "The model returns probabilities where attacks expect logits: their losses saturate. "
            "Return logits, or log-probabilities.",
        )
    bad: dict[str, float] = {}
    with under_attack(subject.model), isolated_rng(subject.seed):
        for name in ("cross_entropy", "dlr" if classes > 2 else "margin"):
            # DLR is flat by its own making where a draw puts the label third: one draw in eight
            # with a gradient is enough.
            draws = 8 if subject.random else 1
            try:
                slopes = [
                    single_gradient(subject.model, images, labels, OBJECTIVES[name]).flatten(1)
                    for _ in range(draws)
                ]
            except RuntimeError as error:
                return GRADIENTS.finding(ALARM, "no gradient", f"The model has none: {error}")
            flat = torch.stack(slopes)
            unusable = (flat == 0).all(2).all(0) | ~flat.isfinite().all(2).all(0)
            bad[name] = 100 * float(unusable.float().mean())
    told = ", ".join(f"{name} {share:.1f} % of images" for name, share in bad.items())
    if any(bad.values()):
        return GRADIENTS.finding(
            ALARM,
            told,
            "Some gradients are zero or not numbers: attacks that follow them are blind there, and "
            "what they fail to break is not thereby robust. Look for saturated, quantised or "
            "detached outputs, and attack without gradients.",
        )
    return GRADIENTS.finding(CLEAR, told, "Every image has a gradient.")


def randomness(subject: Subject) -> Finding:
    """Check 2: does the model answer twice the same, and everybody the same?"""
    with isolated_rng(subject.seed):
        return _randomness(subject)


def _randomness(subject: Subject) -> Finding:
    images = subject.images[subject.few()][:BATCH]
    draws = 16 if subject.random else 5
    with torch.no_grad():
        answers = torch.stack([_normalised(subject.model(images)) for _ in range(draws)])
        turned = torch.stack(
            [_normalised(subject.model(images.flip(0))).flip(0) for _ in range(draws)]
        )
    asked = torch.stack(
        [_normalised(subject.model(images.clone().requires_grad_())).detach() for _ in range(draws)]
    )
    differs = float((answers.amax(0) - answers.amin(0)).amax())
    told = f"largest difference {differs:.2g}"
    for other, why in (
        (asked, "its answers change when gradients are asked"),
        (turned, "an answer depends on the place in the batch"),
    ):
        if apart := _apart(answers, other, random=differs > _SAME):
            return RANDOMNESS.finding(
                ALARM,
                f"{told}; {why}, {apart}",
                f"Something is hidden: {why}. What an attack sees is not what is measured (noise "
                "switched on or off, or a memorised seed).",
            )
    if differs > _SAME:
        return RANDOMNESS.finding(
            NOTE,
            told,
            "The model is random: this audit averages gradients over draws and votes again on "
            "fresh ones. Whoever quotes one pass under one attack must do so too.",
        )
    in_training = _random_in_training(subject.model, images)
    if in_training > _SAME and subject.voted:
        return RANDOMNESS.finding(
            ALARM,
            f"{told}; in training mode {in_training:.2g}",
            "Votes are taken of a model that answers the same each time: its noise is on in "
            "training mode and off in eval mode, where it should defend.",
        )
    if in_training > _SAME:
        return RANDOMNESS.finding(
            NOTE,
            f"{told}; in training mode {in_training:.2g}",
            "The model is deterministic, but not in training mode. Dropout and the like are so by "
            "design; noise that should defend must stay on in eval mode.",
        )
    return RANDOMNESS.finding(CLEAR, told, "The model is deterministic.")


_SAME = 1e-4
_STANDARD = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def _apart(one: Tensor, two: Tensor, random: bool) -> str:
    """Say how far two sets of answers (draws, N, K) are apart, if that is no chance.

    Of random ones the means, in standard errors, and the spreads over the draws, each over all
    images and classes: of thousands of numbers, by which chance is no more than a few per cent.
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
    """Return how much a copy's answers differ in training mode, but for its usual layers."""
    try:
        copied = copy.deepcopy(model)
    except Exception:  # somebody's module may hold anything
        return 0.0
    for part in copied.modules():
        part.training = not isinstance(part, _STANDARD)
    with torch.no_grad():
        one, two = (_normalised(copied(images[:8])) for _ in range(2))
    return float((one - two).abs().amax())


def _normalised(logits: Logits) -> Tensor:
    return logits / logits.norm(dim=1, keepdim=True).clamp_min(1e-12)


class _Readout(nn.Module):
    """Two classes told apart by a line through the model's answers, one line for each image."""

    def __init__(self, model: nn.Module, weight: Tensor, threshold: Tensor) -> None:
        super().__init__()
        self.model, self.weight, self.threshold = model, weight, threshold
        self.training = False

    def forward(self, images: Images) -> Logits:
        score = (self.model(images) * self.weight).sum(1) - self.threshold
        return torch.stack([torch.zeros_like(score), score], 1)


def binarisation(subject: Subject) -> Finding:
    """Check 3: an attack must solve problems that surely have a solution."""
    rows = slice(0, min(24, len(subject.images)))
    images = subject.images[rows]
    draws, inner = (16 if subject.random else 1), 48
    with torch.no_grad(), isolated_rng(subject.seed):
        far = subject.ball.project(
            images + 4 * subject.ball.radius * torch.randn_like(images).sign(), images
        )
        near = [images + (subject.ball.random(images) - images) * 0.5 for _ in range(inner)]
        inside = torch.stack([_answers(subject.model, x, draws) for x in [images, *near]])
        outside = _answers(subject.model, far, draws)
        weight = outside - inside.mean(0)
        weight = weight / (inside.var(0) + 1e-3 * inside.var() + 1e-12)
        highest, goal = (inside * weight).sum(2).amax(0), (outside * weight).sum(1)
        solvable = goal > highest
        readout = _Readout(subject.model, weight, 0.5 * (highest + goal))
    if solvable.float().mean() < 0.5:
        return BINARISATION.finding(
            SKIPPED,
            f"{100 * solvable.float().mean():.0f} % of the problems could be posed",
            "The model's answers hardly move within the ball: no problem with a known solution "
            "could be made of them.",
        )
    zeros = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    attack = subject.pgd(2 * subject.steps, draws=max(subject.draws, draws), objective="margin")
    with isolated_rng(subject.seed):
        moved = attack(readout, images, zeros, subject.ball)
        with torch.no_grad():
            score = torch.stack([readout(moved)[:, 1] for _ in range(2 * draws)]).mean(0)
    success = 100 * float((score > 0)[solvable].float().mean())
    told = f"success {success:.0f} % on {int(solvable.sum())} images"
    if success < 95:
        return BINARISATION.finding(
            ALARM,
            told,
            "The attack misses solutions that are known to exist: it is too weak for this model, "
            "and its failures elsewhere prove nothing.",
        )
    return BINARISATION.finding(CLEAR, told, "The attack finds solutions where there are some.")


def _answers(model: nn.Module, images: Images, draws: int) -> Logits:
    return torch.stack([model(images) for _ in range(draws)]).mean(0)


def averaging(subject: Subject) -> Finding:
    """Check 4: more draws in a gradient must not help any more."""
    if not subject.random:
        return AVERAGING.finding(SKIPPED, "static model", "There is nothing to average over.")
    told, most = [], subject.effort.eot[-1]
    for draws in subject.effort.eot:
        if draws <= subject.draws:
            direct = draws == subject.draws
            kept = subject.attacked() if direct else subject.right(subject.climb(draws), "fresh")
            told.append(f"{draws} draws: {100 * kept.float().mean():.1f} %")
    drop = worse(*subject.against(f"eot {most}", subject.pgd(draws=most)))
    part = subject.few()
    images, labels = subject.images[part], subject.labels[part]
    with under_attack(subject.model), isolated_rng(subject.seed):
        one, two = (
            mean_gradient(subject.model, images, labels, OBJECTIVES["cross_entropy"], 16)
            for _ in range(2)
        )
    cosine = float(F.cosine_similarity(one.flatten(1), two.flatten(1)).median())
    told.append(f"{most} draws break {drop.points:.1f} points more; cosine {cosine:.2f}")
    alarm = (
        "The gradient is mostly noise at this number of draws: accuracy under it flatters the "
        "model. Average over more draws before quoting a figure."
    )
    if cosine < 0.5:
        return AVERAGING.finding(ALARM, "; ".join(told), alarm)
    return judged(AVERAGING, [drop], "; ".join(told), alarm, "Enough draws: more change little.")


GRADIENTS = Check(
    1,
    "usable gradients",
    "gradient of the cross-entropy and of DLR at every image",
    "any image has a gradient that is not a number, or zero (in 8 draws)",
    gradients,
)
RANDOMNESS = Check(
    2,
    "randomness",
    "repeats of one batch, turned round, and with gradients asked; normalised logits",
    "the place in the batch or asking for gradients changes them, or votes are taken of a model "
    "without noise (that they differ by more than 1e-4 is a note)",
    randomness,
)
BINARISATION = Check(
    3,
    "binarisation",
    "problems with a known solution in the ball, made from the model's answers",
    "the attack solves fewer than 95 %",
    binarisation,
)
AVERAGING = Check(
    4,
    "averaging over draws",
    "PGD with more and more draws in a gradient; cosine of two independent gradients of 16 draws",
    "the most draws break at least 1 point more (McNemar p < 0.001), or the median cosine < 0.5",
    averaging,
)
