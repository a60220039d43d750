"""Checks 1, 3 and 4: can the gradients be used, and do they follow the model?"""

import torch
from torch import Tensor, nn

from smoothinfer.attacks.gradients import mean_gradient, single_gradient
from smoothinfer.attacks.losses import ATTACK_LOSSES
from smoothinfer.evaluation.audit.chance import least_images, more_than, worse
from smoothinfer.evaluation.audit.context import AuditContext
from smoothinfer.evaluation.audit.finding import (
    ALARM,
    RIGHT,
    SKIPPED,
    Finding,
    check,
    judge,
)
from smoothinfer.evaluation.batches import rounding_of
from smoothinfer.numerics.balls import L2
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import attack_mode
from smoothinfer.types import Images, Labels, Logits

_PROBLEMS = 24  # of check 3
_INNER = 48  # points around an image on which its problem is posed


@check(
    1,
    "usable gradients",
    "gradient of the cross-entropy and of DLR at images that are right",
    "a gradient is not a number, or more than 1 % are zero in 8 draws (p < 0.001)",
)
def gradients(context: AuditContext) -> Finding:
    """Gradients must be numbers, and must not be zero."""
    if _is_constant(context):
        return gradients.finding(
            ALARM,
            "the same logits for every image",
            "The model's answer does not depend on the image, so there is nothing to attack.",
        )
    if context.no_gradient:
        return gradients.finding(
            ALARM,
            context.no_gradient,
            "The model gives no gradient, so no attack here can follow it, and its accuracy under "
            "attack is not measured. Let the gradient through, or attack without gradients.",
        )
    # Where the label has lost by far, DLR is flat by definition: only correct images count.
    rows = context.choose(context.clean().nonzero().flatten())
    images, labels = context.images[rows], context.labels[rows]
    if _are_probabilities(context.model, images):
        return gradients.finding(
            ALARM,
            "the outputs are probabilities",
            "The model returns probabilities where attacks expect logits: their losses saturate. "
            "Return logits, or log-probabilities.",
        )
    classes = logits_of(context.model, images[:1]).shape[1]
    zero: dict[str, Tensor] = {}
    with attack_mode(context.model), isolated_rng(context.seed):
        for name in ("cross_entropy", "dlr" if classes > 2 else "margin"):
            drawn = _gradients(context, images, labels, name)
            if count := int((~drawn.isfinite().all(2).all(0)).sum()):
                return gradients.finding(
                    ALARM,
                    f"{name}: {count} of {len(images)} gradients are not numbers",
                    "Attacks cannot follow a gradient that is not a number. Look for a root, a "
                    "logarithm or a division at zero.",
                )
            zero[name] = (drawn == 0).all(2).all(0)
    return judge(
        gradients,
        [more_than(each, 0.01, tests=len(zero)) for each in zero.values()],
        ", ".join(f"{k}: {100 * each.float().mean():.1f} % are zero" for k, each in zero.items()),
        "Some gradients are zero: attacks that follow them stay where they are, and images that "
        "they fail to break may still be weak. Look for saturated, quantised or detached outputs, "
        "and attack without gradients.",
        "The images have gradients.",
        RIGHT,
    )


def _is_constant(context: AuditContext) -> bool:
    images = context.images[context.few(8)]
    with torch.no_grad():
        answers = logits_of(context.model, torch.cat([images, 1 - images, images / 2]))
    return bool((answers == answers[:1]).all())


def _are_probabilities(model: nn.Module, images: Images) -> bool:
    # Few logits may add up to 1 by chance, but not those of inverted images as well.
    with torch.no_grad():
        answers = torch.cat([logits_of(model, each) for each in (images, 1 - images)])
    tolerance = max(1e-4, rounding_of(model, answers))
    return bool(answers.min() >= 0 and (answers.sum(1) - 1).abs().amax() < tolerance)


def _gradients(context: AuditContext, images: Images, labels: Labels, loss: str) -> Tensor:
    """Return gradients (draws, N, pixels) at the images."""
    # DLR is flat by definition where a draw puts the label third: one draw in eight with a
    # gradient is enough.
    draws = 8 if context.random else 1
    found = [
        single_gradient(context.model, images, labels, ATTACK_LOSSES[loss]).flatten(1)
        for _ in range(draws)
    ]
    return torch.stack(found)


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
    "two-class problems with a known solution in the ball, made from the model's answers",
    "the attack solves fewer than 95 % (p < 0.001)",
)
def binarisation(context: AuditContext) -> Finding:
    """An attack must solve problems that surely have a solution."""
    images = context.images[context.few(_PROBLEMS)]
    draws = 16 if context.random else 1
    with isolated_rng(context.seed):
        readout, solvable = _pose(context, images, draws)
        posed = int(solvable.sum())
        least = least_images(0.05)
        if len(images) < least or (posed < least and posed >= len(images) / 2):
            return binarisation.too_few(least, posed, "with a known solution")
        if posed < len(images) / 2:
            return binarisation.finding(
                SKIPPED,
                f"of {len(images)} images only {posed} gave a problem",
                "The model's answers hardly move within the ball: no problem with a known solution "
                "could be made of them.",
            )
        attack = context.pgd(2 * context.steps, draws=max(context.draws, draws), loss="margin")
        zeros = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        adversarial = attack(readout, images, zeros, context.ball)
        with torch.no_grad():
            score = torch.stack([readout(adversarial)[:, 1] for _ in range(2 * draws)]).mean(0)
    failed = (score <= 0)[solvable]
    return judge(
        binarisation,
        [more_than(failed, 0.05)],
        f"{posed - int(failed.sum())} of {posed} problems solved",
        "The attack misses solutions that are known to exist: it is too weak for this model, "
        "and its failures elsewhere prove nothing.",
        "The attack finds solutions where there are some.",
    )


def _pose(context: AuditContext, images: Images, draws: int) -> tuple[_Readout, Tensor]:
    """Return a problem for each image, and (N,) whether it surely has a solution."""
    with torch.no_grad():
        far = context.ball.project(
            images + 4 * context.ball.radius * torch.randn_like(images).sign(), images
        )
        near = [images + (context.ball.random(images) - images) * 0.5 for _ in range(_INNER)]
        inside = torch.stack([_answers(context.model, x, draws) for x in [images, *near]])
        outside = _answers(context.model, far, draws)
        weight = outside - inside.mean(0)
        weight = weight / (inside.var(0) + 1e-3 * inside.var() + 1e-12)
        highest, beyond = (inside * weight).sum(2).amax(0), (outside * weight).sum(1)
        return _Readout(context.model, weight, 0.5 * (highest + beyond)), beyond > highest


def _answers(model: nn.Module, images: Images, draws: int) -> Logits:
    return torch.stack([logits_of(model, images) for _ in range(draws)]).mean(0)


@check(
    4,
    "averaging over draws",
    "PGD with more and more draws in a gradient; cosine of two independent gradients of 16 draws",
    "the most draws break at least 1 point more, or the median cosine is below 0.5 (p < 0.001)",
    static="A model without noise has the same gradient at every draw.",
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
            measured.append(
                f"{draws} draw{'s' if draws > 1 else ''}: {100 * kept.float().mean():.1f} %"
            )
    drop = worse(*context.compare_attack(f"eot {most}", context.pgd(draws=most)), tests=2)
    part = context.few()
    images, labels = context.images[part], context.labels[part]
    with attack_mode(context.model), isolated_rng(context.seed):
        one, two = (
            mean_gradient(context.model, images, labels, ATTACK_LOSSES["cross_entropy"], 16)
            for _ in range(2)
        )
    direction = L2(1.0).ascend  # the gradient of a confident network is too small to be squared
    cosine = (direction(one) * direction(two)).flatten(1).sum(1)
    measured.append(f"{most} draws break {drop.points:z.1f} points more")
    measured.append(f"median cosine {cosine.median():.2f}")
    return judge(
        averaging,
        [drop, more_than(cosine < 0.5, 0.5, tests=2)],
        "; ".join(measured),
        "The gradient is mostly noise at this number of draws, so the attack is too weak and the "
        "accuracy under it too high. Average over more draws before quoting a figure.",
        "Enough draws: more change little.",
    )
