"""Check 2: does the model give the same answers, whoever asks, and whatever else is asked?"""

import copy
import math

import torch
from torch import Tensor, nn

from smoothinfer.evaluation.audit.context import BATCH, AuditContext
from smoothinfer.evaluation.audit.finding import ALARM, CLEAR, NOTE, Finding, check
from smoothinfer.evaluation.batches import depends_on_batch, rounding_of
from smoothinfer.numerics.permutations import permutation_test
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images, Logits

_SAME = 1e-4  # difference of logits of norm 1, computed in float32
_UNITS = 16.0  # of rounding, in coarser formats
_PASSES = 4  # of a random model, held fixed, whose batches are compared
_CERTAIN = 1e-3
_STANDARD = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


@check(
    2,
    "randomness",
    "repeats of one batch, in parts, in reverse order, and with gradients; normalised logits",
    "an answer depends on the other images of its batch, on its place, or on whether gradients are "
    "computed (p < 0.001), or votes are of a model without noise (a note: answers differ)",
)
def randomness(context: AuditContext) -> Finding:
    """Does the model repeat its answers, whoever asks?"""
    images = context.images[context.few(BATCH)]
    with isolated_rng(context.seed):
        if found := depends_on_batch(context.model, images, _PASSES):
            return randomness.finding(
                ALARM,
                found,
                "Figures hold for this order and number of images only. Look for batch "
                "normalisation by the batch's own statistics, averages over the first axis, and "
                "state that changes in eval mode.",
            )
        return _repeat(context, images)


def _repeat(context: AuditContext, images: Images) -> Finding:
    draws = 16 if context.random else 5
    asked, turned = images.clone().requires_grad_(), images.flip(0)
    with torch.no_grad():
        answers = _answers(context.model, images, draws)
        others = {"its place in the batch": _answers(context.model, turned, draws).flip(1)}
    if context.differentiable:
        others["whether gradients are computed"] = _answers(context.model, asked, draws).detach()
    same = max(_SAME, _UNITS * rounding_of(context.model, answers))
    differs = float((answers.amax(0) - answers.amin(0)).amax())
    measured = f"largest difference {differs:.2g}"
    for why, other in others.items():
        if apart := _apart(answers, other, same, len(others), differs > same):
            return randomness.finding(
                ALARM,
                f"{measured}; answers depend on {why}: they differ {apart}",
                f"The model's answer to an image depends on {why}, so the attack sees another "
                "model than the one that is measured. Look for noise that is switched on or off, "
                "and for a seed that is set at every call.",
            )
    if differs > same:
        return randomness.finding(
            NOTE,
            measured,
            "The model is random: this audit averages gradients over draws and votes again on "
            "fresh ones. A figure of one pass under one attack needs the same care.",
        )
    return _in_training(context, images, measured, same)


def _in_training(context: AuditContext, images: Images, measured: str, same: float) -> Finding:
    in_training = _random_in_training(context.model, images)
    measured = f"{measured}; in training mode {in_training:.2g}"
    if in_training > same and context.voted:
        return randomness.finding(
            ALARM,
            measured,
            "The votes are of a model without noise: it is on in training mode and off in eval "
            "mode, where it should defend.",
        )
    if in_training > same:
        return randomness.finding(
            NOTE,
            measured,
            "The model is deterministic, but not in training mode. Dropout and the like are so by "
            "design; noise that should defend must stay on in eval mode.",
        )
    return randomness.finding(CLEAR, measured.split(";")[0], "The model is deterministic.")


def _apart(one: Tensor, two: Tensor, same: float, tests: int, random: bool) -> str:
    """Say how far two sets of answers (draws, N, K) are apart, if by more than ``same``.

    Those of a random model must be apart beyond chance too, in their means or in their spreads.
    """
    if not random:
        apart = float((one[0] - two[0]).abs().amax())
        return f"by {apart:.2g}" if apart > same else ""
    certain = _CERTAIN / (2 * tests)
    moved, spread = (each < certain for each in permutation_test(one, two))
    means = (one.mean(0) - two.mean(0)).square().mean().sqrt()
    if moved and means > same:
        return f"by {means:.2g} in the mean"
    spreads = [each.var(0).mean().sqrt() for each in (one, two)]
    if spread and (spreads[1] - spreads[0]).abs() > same:
        times = abs(math.log(float((spreads[1] + same) / (spreads[0] + same))))
        return f"{math.exp(times):.1f} times in their spread"
    return ""


def _random_in_training(model: nn.Module, images: Images) -> float:
    """Return how much a copy's answers differ in training mode, its standard layers aside."""
    try:
        copied = copy.deepcopy(model)
        for part in copied.modules():
            part.training = not isinstance(part, _STANDARD)
        with torch.no_grad():
            one, two = _answers(copied, images[:8], 2)
    except Exception:  # a third-party module may hold anything, or return more in training mode
        return 0.0
    return float((one - two).abs().amax())


def _answers(model: nn.Module, images: Images, draws: int) -> Tensor:
    """Return logits of norm 1, (draws, N, K)."""
    return torch.stack([_normalised(logits_of(model, images)) for _ in range(draws)])


def _normalised(logits: Logits) -> Tensor:
    return logits / logits.norm(dim=1, keepdim=True).clamp_min(1e-12)
