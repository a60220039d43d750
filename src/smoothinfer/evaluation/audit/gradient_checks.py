"""Checks 1 to 4: can the gradients be used, and do they say what the model does?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.attacks import OBJECTIVES
from smoothinfer.attacks.gradients import mean_gradient, single_gradient
from smoothinfer.evaluation.audit.finding import ALARM, CLEAR, NOTE, SKIPPED, Check, Finding, worse
from smoothinfer.evaluation.audit.subject import Subject
from smoothinfer.models import parameters_frozen
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
    with parameters_frozen(subject.model), isolated_rng(subject.seed):
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
    images = subject.images[subject.few()]
    with torch.no_grad():
        answers = torch.stack([_normalised(subject.model(images)) for _ in range(5)])
        turned = _normalised(subject.model(images.flip(0))).flip(0)
    differs = float((answers.amax(0) - answers.amin(0)).amax())
    told = f"largest difference {differs:.2g}"
    asked = _normalised(subject.model(images.clone().requires_grad_())).detach()
    in_training = _noise_in_training(subject.model, images)
    if differs > _SAME:
        return RANDOMNESS.finding(
            NOTE,
            told,
            "The model is random: this audit averages gradients over draws and votes again on "
            "fresh ones. Whoever quotes one pass under one attack must do so too.",
        )
    for apart, why in (
        (float((asked - answers[0]).abs().amax()), "its answers change when gradients are asked"),
        (float((turned - answers[0]).abs().amax()), "an answer depends on the place in the batch"),
        (in_training, "its noise is on in training mode and off in eval mode"),
    ):
        if apart > _SAME:
            return RANDOMNESS.finding(
                ALARM,
                f"{told}; {why}, by {apart:.2g}",
                f"The model answers the same again and again, but {why}: what an attack sees is "
                "not what is measured (noise switched off, or a memorised seed).",
            )
    return RANDOMNESS.finding(CLEAR, told, "The model is deterministic.")


_SAME = 1e-4
_STANDARD = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def _noise_in_training(model: nn.Module, images: Images) -> float:
    """Return how much answers differ in training mode, dropout and batch statistics apart."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        for part, _ in modes:
            part.training = not isinstance(part, _STANDARD)
        with torch.no_grad():
            one, two = (_normalised(model(images[:8])) for _ in range(2))
    finally:
        for part, mode in modes:
            part.training = mode
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
    fired, drop = worse(*subject.against(f"eot {most}", subject.pgd(draws=most)))
    part = subject.few()
    images, labels = subject.images[part], subject.labels[part]
    with parameters_frozen(subject.model), isolated_rng(subject.seed):
        one, two = (
            mean_gradient(subject.model, images, labels, OBJECTIVES["cross_entropy"], 16)
            for _ in range(2)
        )
    cosine = float(F.cosine_similarity(one.flatten(1), two.flatten(1)).median())
    told.append(f"{most} draws break {drop:.1f} points more; cosine {cosine:.2f}")
    if fired or cosine < 0.5:
        return AVERAGING.finding(
            ALARM,
            "; ".join(told),
            "The gradient is mostly noise at this number of draws: accuracy under it flatters the "
            "model. Average over more draws before quoting a figure.",
        )
    return AVERAGING.finding(CLEAR, "; ".join(told), "Enough draws: more change nothing.")


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
    "five repeats of one batch, normalised logits",
    "they differ by more than 1e-4 (a note: then averages and votes are needed)",
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
