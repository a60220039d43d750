"""Measure one model, clean and attacked: one row per image and setting."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.attacks.naming import Attacks, attacks_by_name
from smoothinfer.data import Data, ImageData, class_names_of, images_and_labels, match_classes
from smoothinfer.engine.members import Member
from smoothinfer.engine.voting import rule_of
from smoothinfer.errors import MOST_PASSES, InputError, plain_float, plain_int, plain_seed
from smoothinfer.evaluation.batches import depends_on_batch
from smoothinfer.evaluation.example_cache import ExampleCache
from smoothinfer.evaluation.results import Results
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.units import Evaluation
from smoothinfer.numerics.balls import Ball, Linf, check_ball
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images


def evaluate(
    classifier: nn.Module,
    data: Data,
    *,
    attack: Attacks = None,
    ball: Ball = Linf(8 / 255),
    target: nn.Module | None = None,
    rules: str | Sequence[str] | None = None,
    samples: int | Sequence[int] | None = None,
    stop: str = "fixed",
    delta: float = 1e-3,
    seed: int = 0,
    out: str | Path | None = None,
    describe: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Results:
    """Return one row per image, attack, rule and number of samples; see `Results`.

    Each attack runs once per image against ``target``; the verdicts on the adversarial images are
    voted from passes of a stream that the attack never saw. Without early stopping all rules and
    all numbers of samples come from one run of the largest number.

    Args:
        classifier: a `SmoothedClassifier`, or any module (then one pass decides). One with a seed
            of its own (`frozen`) is measured as it is, by its own passes, which the attack may
            query too: the column ``passes`` says so.
        data: (images, labels), batches of these as a ``DataLoader`` gives them, or the result of
            `load_data`.
        attack: one or several, each a text as on the command line, ``"epgd(draws=8)"``, or a
            function; or a mapping from names to these. ``None`` and ``"none"`` measure clean
            images only. Clean images are always measured.
        ball: where the attack may move an image, in pixel units.
        target: the module that the attack sees: by default the noisy model inside the
            classifier, as in the paper. Another one is named in the column ``target``, a
            `frozen` view with its seed and number of passes.
        rules: voting rules; by default the classifier's own.
        samples: the most passes of an image; by default the classifier's own number.
        stop, delta: when a vote ends, see `SmoothedClassifier.predict`; the column ``used`` holds
            the passes of each image.
        seed: names the streams of the attack and of the verdicts.
        out: folder of Parquet shards; units that are stored there are not run again.
        describe: further columns that describe the setting, such as the model's name.
        progress: show a progress bar.

    Raises:
        InputError: data, names or numbers are malformed; nothing has been computed then.

    >>> import torch
    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> smooth = SmoothedClassifier(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=4)
    >>> rows = evaluate(smooth, (torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])), attack="pgd")
    >>> len(rows)  # 3 images, clean and attacked
    6
    """
    work = prepare(
        classifier,
        data,
        attack=attack,
        ball=ball,
        target=target,
        rules=rules,
        samples=samples,
        stop=stop,
        delta=delta,
        seed=seed,
        describe=describe,
    )
    warn_of_batches(work.classifier.model, work.images)
    runner = Runner([work], Store(out))
    runner.run(progress)
    return Results(runner.rows())


def prepare(
    classifier: nn.Module,
    data: Data,
    *,
    attack: Attacks = None,
    ball: Ball = Linf(8 / 255),
    target: nn.Module | None = None,
    rules: str | Sequence[str] | None = None,
    samples: int | Sequence[int] | None = None,
    stop: str = "fixed",
    delta: float = 1e-3,
    seed: int = 0,
    describe: Mapping[str, Any] | None = None,
    cache: str | Path | None = None,
    clean: bool = True,
) -> Evaluation:
    """Return the evaluation that `evaluate` runs, checked, in units for a `Runner`.

    Args:
        cache: folder of adversarial examples; those that are there are not made again.
        clean: measure clean images too; ``False`` where another evaluation does.

    The other arguments and errors are those of `evaluate`.
    """
    if not isinstance(classifier, SmoothedClassifier):
        classifier = SmoothedClassifier(classifier, samples=1)
    if isinstance(data, ImageData):
        data = match_classes(data, class_names_of(classifier))
    images, labels = images_and_labels(data)
    rules = [rules] if isinstance(rules, str) else rules
    own_rule = {classifier.rule_name: classifier.rule}
    fixed = classifier.seed is not None  # then the attack may query the very passes of the vote
    check_ball(ball)
    work = Evaluation(
        classifier=classifier,
        target=(classifier if fixed else classifier.model) if target is None else target,
        images=images,
        labels=labels,
        attacks={**({CLEAN: None} if clean else {}), **attacks_by_name(attack)},
        ball=ball,
        rules={name: rule_of(name) for name in rules} if rules else own_rule,
        samples=_sample_counts(samples) or [classifier.samples],
        seed=plain_seed(seed),
        stop=stop,
        delta=plain_float("delta", delta, above=0, below=1),
        describe=dict(describe or {}),
        cache=None if cache is None else ExampleCache(cache),
    )
    work.describe |= _describe(work, target)
    work.check()
    if isinstance(data, ImageData) and len(data.classes) != work.classes:
        raise InputError(
            f"the model tells {work.classes} classes apart, {data.name} has {len(data.classes)}"
        )
    return work


def warn_of_batches(model: nn.Module, images: Images) -> None:
    """Warn where a model's answer to an image depends on the others; see `depends_on_batch`."""
    if found := depends_on_batch(model, images):
        warnings.warn(f"figures hold for this order of the images only: {found}", stacklevel=3)


def _sample_counts(samples: int | Sequence[int] | None) -> list[int]:
    """Return the numbers of passes in ascending order, each once."""
    if samples is None:
        return []
    single = isinstance(samples, str) or getattr(samples, "ndim", 1) == 0
    each = samples if isinstance(samples, Iterable) and not single else [samples]
    return sorted({plain_int("samples", most, 1, MOST_PASSES) for most in each})


def _describe(work: Evaluation, target: nn.Module | None) -> dict[str, Any]:
    """Return columns for a vote that stops early, for fixed passes, and for an unusual target.

    Fixed passes are another model than the random one, and fixed noise another thing to attack.
    """
    smooth = work.classifier
    columns: dict[str, Any] = {}
    if work.stop != "fixed":
        columns |= {"stop": work.stop, "delta": work.delta}
    if smooth.seed is not None:
        columns["passes"] = f"frozen, seed {smooth.seed}"
    elif isinstance(smooth.model, Member):
        columns["passes"] = f"frozen, pass {smooth.model.s} of seed {smooth.model.seed}"
    if isinstance(target, SmoothedClassifier):
        passes = "fresh passes" if target.seed is None else f"frozen, seed {target.seed}"
        columns["target"] = f"{target.rule_name} vote of {target.samples} ({passes})"
    elif target is not None:
        columns["target"] = type(target).__name__
    return columns
