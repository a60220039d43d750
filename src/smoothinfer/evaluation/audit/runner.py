"""The audit: thirteen checks that tell robustness from randomness."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from smoothinfer.attacks.gate import check_differentiable
from smoothinfer.data import Data, ImageData, class_names_of, images_and_labels, match_classes
from smoothinfer.engine.voting import RULES, rule_of
from smoothinfer.errors import InputError, check_images, check_labels, check_type, plain_seed
from smoothinfer.evaluation.audit import (
    attack_checks,
    gradient_checks,
    noise_checks,
    randomness_check,
)
from smoothinfer.evaluation.audit.context import FULL, QUICK, AuditContext
from smoothinfer.evaluation.audit.finding import SKIPPED, Check, Finding
from smoothinfer.evaluation.audit.kept_findings import KeptFindings
from smoothinfer.numerics.balls import Ball, Linf, check_ball
from smoothinfer.numerics.statistics import Interval, proportion
from smoothinfer.runtime.modes import check_eval, count_classes
from smoothinfer.runtime.progress import progress_bar
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images, Labels

_MODULES = (gradient_checks, randomness_check, attack_checks, noise_checks)
_FOUND = [each for module in _MODULES for each in vars(module).values() if isinstance(each, Check)]
CHECKS = {each.number: each for each in sorted(_FOUND, key=lambda each: each.number)}
Result = TypeVar("Result")
_NO_GRADIENT = "It compares attacks that follow gradients."
_WITHOUT_GRADIENT = (
    gradient_checks.gradients,
    randomness_check.randomness,
    noise_checks.selection,
)


@dataclass(frozen=True, repr=False)
class Audit:
    """The result of an audit.

    Attributes:
        findings: one for each check, in the order of their numbers.
        clean, attacked: accuracy of the vote, before and after the direct attack.
        about: the settings of the audit.
    """

    findings: list[Finding]
    clean: Interval
    attacked: Interval
    about: dict[str, Any]

    def __repr__(self) -> str:
        lines = [f"{each.number:3} {each.state:8} {each.name}" for each in self.findings]
        about = f"clean {self.clean} %, attacked {self.attacked} %"
        return "\n".join([f"Audit: {self.verdict}", about, *lines])

    @property
    def fired(self) -> list[Finding]:
        """The findings that are alarms."""
        return [finding for finding in self.findings if finding.fired]

    @property
    def too_few(self) -> list[Finding]:
        """The findings that more images could change: with any, the audit is not complete."""
        return [finding for finding in self.findings if finding.too_few]

    @property
    def verdict(self) -> str:
        """One sentence or two."""
        unsure = ", ".join(str(each.number) for each in self.too_few)
        other = [each for each in self.findings if each.state == SKIPPED and not each.too_few]
        skipped = ", ".join(str(each.number) for each in other)
        end = f" (skipped: check {skipped})." if skipped else "."
        if self.fired:
            names = ", ".join(f"{finding.number} ({finding.name})" for finding in self.fired)
            return f"Not to be relied on: check {names} fired."
        if unsure:
            count = self.clean.images
            images = f"{count} images are" if count > 1 else "one image is"
            return (
                f"Not complete: {images} too few to tell by check {unsure}. No check fired; audit "
                f"more images{end}"
            )
        return f"Nothing fired: no sign that the measured robustness is an artefact{end}"


def audit(
    model: nn.Module,
    data: Data,
    *,
    ball: Ball = Linf(8 / 255),
    quick: bool = False,
    seed: int = 0,
    seen: Images | Iterable[Images] | None = None,
    checks: Iterable[int] | None = None,
    rule: str | None = None,
    out: str | Path | None = None,
    progress: bool = False,
) -> Audit:
    """Run the checks on ``model``, any module, random or not.

    Args:
        model: from pixels in [0, 1] to logits, in eval mode. For a `SmoothedClassifier` the random
            model inside is attacked, and its rule and samples (no more than the effort allows)
            vote; one with a seed of its own is audited as it is, a model without noise.
        data: images and labels that neither training nor tuning used.
        ball: where the attacker may move an image.
        quick: less work: 300 images of 32x32 pixels take minutes with ResNet-20.
        seed: names all streams.
        seen: images of training and tuning, for check 13.
        checks: numbers of the checks to run; all by default.
        rule: how passes are counted, instead of the classifier's own.
        out: folder that keeps the finding of each check; the same audit goes on from there.
        progress: show a progress bar.

    Raises:
        InputError: data are malformed, there are none, a number of a check is unknown, or the
            model is correct on no image or returns NaN.

    Source: the checks are named after Carlini et al. 2019 (arXiv 1902.06705), Athalye et al. 2018
    (arXiv 1802.00420), Pintor et al. 2022 (arXiv 2106.09947) and Zimmermann et al. 2022 (arXiv
    2206.13991).

    >>> images = torch.linspace(0, 1, 32).reshape(8, 1, 2, 2)
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    >>> labels = net(images).argmax(1)
    >>> found = audit(net, (images, labels), quick=True, checks=[1, 2])
    >>> [finding.state for finding in found.findings]
    ['clear', 'clear']
    """
    chosen = sorted(CHECKS if checks is None else set(checks))
    unknown_checks = set(chosen) - set(CHECKS)
    if unknown_checks:
        raise InputError(f"no check {sorted(unknown_checks)}: they are numbered 1 to {len(CHECKS)}")
    check_ball(ball)
    check_type("model", model, nn.Module, "a torch.nn.Module from images to logits")
    smooth = model if isinstance(model, SmoothedClassifier) and model.seed is None else None
    inner = model if smooth is None else smooth.model
    with torch.inference_mode(False), torch.enable_grad():
        images, labels = _checked(inner, data)
        own = "prediction" if smooth is None else smooth.rule  # may be a rule without a name
        context = AuditContext(
            inner,
            images,
            labels,
            ball,
            effort=QUICK if quick else FULL,
            seed=plain_seed(seed),
            seen=_hashes(seen),
            rule=rule_of(rule or own),
            samples=smooth.samples if smooth else None,
            voted=smooth is not None and smooth.samples > 1,
        )
        if not context.clean().any():
            raise InputError(
                f"no image is classified correctly ({len(images)} given): audit other images, or "
                "a better model"
            )
        kept = KeptFindings(None if out is None else Path(out), context)
        return _run(context, chosen, kept, progress)


def _checked(model: nn.Module, data: Data) -> tuple[Images, Labels]:
    """Return images and labels that the model takes."""
    if isinstance(data, ImageData):
        data = match_classes(data, class_names_of(model))
    images, labels = images_and_labels(data)
    check_images(images)
    check_labels(labels, images)
    if len(images) == 0:
        raise InputError("there are no images to audit")
    check_eval(model)
    check_differentiable(model)
    check_labels(labels, images, count_classes(model, images))
    return images, labels


def _run(context: AuditContext, chosen: list[int], kept: KeptFindings, progress: bool) -> Audit:
    findings, seconds = [], {}
    with progress_bar("auditing", len(chosen), shown=progress) as bar:
        clean, attacked = context.clean(), _under_attack(context.attacked)
        for number in chosen:
            bar.update(CHECKS[number].name)
            begun = time.perf_counter()
            check = CHECKS[number]
            if (found := kept.load(check)) is None:
                found = _find(check, context)
                kept.save(check, found)
            findings.append(found)
            seconds[number] = round(time.perf_counter() - begun, 1)
            bar.advance()
    about = {
        "images": len(context.images),
        "ball": repr(context.ball),
        "random": context.random,
        "samples": context.passes,
        "rule": next((name for name, each in RULES.items() if each is context.rule), "custom"),
        "direct": f"PGD: {_counted(context.steps, 'step')}, {_counted(context.starts, 'start')}, "
        + _counted(context.draws, "draw")
        if context.differentiable
        else "none: the model has no gradient",
        "seed": context.seed,
        "seconds": seconds,
    }
    counts = [proportion(int(right.sum()), len(right)) for right in (clean, attacked)]
    return Audit(findings, counts[0], counts[1], about)


def _counted(number: int, name: str) -> str:
    """Write a number of things.

    >>> _counted(1, "draw"), _counted(16, "draw")
    ('1 draw', '16 draws')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def _find(check: Check, context: AuditContext) -> Finding:
    if context.differentiable or check in _WITHOUT_GRADIENT:
        return _under_attack(partial(check, context))
    return check.finding(SKIPPED, "no gradient", _NO_GRADIENT)


def _under_attack(run: Callable[[], Result]) -> Result:
    """Return what ``run`` does; an error there comes from images that the user never saw."""
    try:
        return run()
    except InputError as error:
        raise InputError(f"under attack {error}") from error


def _hashes(seen: Images | Iterable[Images] | None) -> frozenset[bytes] | None:
    if seen is None:
        return None
    parts = [seen] if isinstance(seen, torch.Tensor) else seen
    return frozenset(one for part in parts for one in noise_checks.image_hashes(part))
