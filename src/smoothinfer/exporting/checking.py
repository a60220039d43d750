"""Checks of exported files: the same logits under the same noise, and fresh noise in every pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.engine.passes import passes
from smoothinfer.errors import InputError
from smoothinfer.exporting.noisy_pass import NoisyPass
from smoothinfer.types import Images

Run = Callable[[Path, list[dict[str, Tensor]]], list[list[Tensor]]]
_SAME = 1e-4  # of the largest logit: rounding in another order
_PASSES, _CALLS = 16, 6
_COMPARED = 1024  # passes of the file, at least: so many show what happens once in a hundred
_SURE = 1e-6  # chance of a false alarm
# Of the ratio below, chi-squared with 5 degrees of freedom over 5: beyond them once in 10^7 votes.
_LEAST, _MOST = 1e-3, 9.0
_ERRORS = 6.0  # standard errors, between mean probabilities


@dataclass(frozen=True)
class PassCheck:
    """One pass of the file beside `smoothinfer.passes` in fp32, under the noise of the same seed.

    Attributes:
        passes, images: compared.
        difference: the largest between two logits, as a share of the largest logit.
        other_votes: how many of the passes times images put another class first.
    """

    passes: int
    images: int
    difference: float
    other_votes: int


@dataclass(frozen=True)
class VoteCheck:
    """Several votes of the file beside as many passes of the model.

    Attributes:
        calls, samples, images: votes compared, passes of each, and images.
        spread: the variance between votes times ``samples``, over the variance between passes:
            1 for passes with noise of their own, ``samples`` if a vote draws once, 0 for noise
            that is always the same. ``None`` for a model without noise.
        errors: the largest difference of mean probabilities, in standard errors.
    """

    calls: int
    samples: int
    images: int
    spread: float | None
    errors: float


def check_pass(
    path: Path, run: Run, one: NoisyPass, model: nn.Module, images: Images
) -> dict[str, Any]:
    """Compare the file of one pass with the model.

    Raises:
        InputError: they differ by more than rounding.
    """
    seed = 0
    calls = [{"images": images, "noise": one.noise_of(seed, s)} for s in range(_PASSES)]
    found = torch.stack([outputs[0] for outputs in run(path, calls)])
    expected = torch.stack(list(passes(model, images, _PASSES, seed, precision="fp32")))
    difference = float((found - expected).abs().amax() / expected.abs().amax().clamp_min(1e-12))
    other = int((found.argmax(2) != expected.argmax(2)).sum())
    if not difference <= _SAME:
        raise InputError(
            f"the exported pass differs from the model by {difference:.2g} of its largest logit "
            "under the same noise: the exporter has changed it, and no file is written"
        )
    return asdict(PassCheck(_PASSES, len(images), difference, other))


def check_vote(
    path: Path, run: Run, model: nn.Module, samples: int, images: Images
) -> dict[str, Any]:
    """Compare votes of the file with passes of the model.

    Raises:
        InputError: the mean probabilities differ, or the noise of the file is fixed.
    """
    calls = max(_CALLS, -(-_COMPARED // samples))
    found = run(path, [{"images": images}] * calls)
    votes = torch.stack([outputs[2] for outputs in found]).double()
    labels, counts = (torch.stack([outputs[place] for outputs in found]) for place in (0, 1))
    if not (counts.sum(2) == samples).all() or not (counts.argmax(2) == labels).all():
        raise InputError("the exported vote counts wrongly: no file is written")
    drawn = passes(model, images, samples * calls, seed=0, precision="fp32")
    each = torch.stack([logits.softmax(1).double() for logits in drawn])
    spread = _spread(votes, each, samples)
    if spread is not None and spread < _LEAST and _chance_of_no_event(each) < _SURE:
        raise InputError(
            "the exporter has turned the noise into constants: every vote of the file is the same, "
            "and no file is written"
        )
    if spread is not None and samples > _MOST and spread > _MOST:
        raise InputError(
            "the exported vote uses the same noise in all its passes, and no file is written"
        )
    # As if one more pass had been far off: a rare one may have been missed.
    error = (2 * (each.var(0) + 1 / len(each)) / len(each)).sqrt() + 1e-4
    errors = float(((votes.mean(0) - each.mean(0)).abs() / error).amax())
    if not errors <= _ERRORS:
        raise InputError(
            f"the exported vote differs from the model's by {errors:.1f} standard errors: the "
            "exporter has changed it, and no file is written"
        )
    return asdict(VoteCheck(calls, samples, len(images), spread, errors))


def _chance_of_no_event(each: Tensor) -> float:
    """Return the probability that as many fresh passes would all give the usual answer."""
    usual = each.median(0).values
    rate = float(((each - usual).abs().amax(2) > 1e-6).double().mean(0).amax())
    return float((1 - rate) ** len(each))


def _spread(votes: Tensor, each: Tensor, samples: int) -> float | None:
    """Return the mean over images of the ratio in `VoteCheck`, for the likeliest class."""
    top = each.mean(0).argmax(1)[:, None]
    between = votes.var(0).gather(1, top)
    single = each.var(0).gather(1, top)
    random = single > 1e-10
    if not random.any():
        return None
    return float((samples * between[random] / single[random]).mean())
