"""Measure one model: craft, vote again with members the attack never saw, one row per image."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from smoothinfer.attacks import ATTACKS, Attack
from smoothinfer.data import ImageData, images_and_labels
from smoothinfer.errors import InputError, check_images, check_labels, choose
from smoothinfer.evaluation.meter import Meter
from smoothinfer.evaluation.table import CLEAN, Rows, Store
from smoothinfer.models import check_eval, parameters_frozen
from smoothinfer.numerics.balls import Ball, Linf, check_ball
from smoothinfer.numerics.processes import Processes
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.smoothing.passes import passes
from smoothinfer.smoothing.voting import Rule, Tally, rule_of
from smoothinfer.types import Images, Labels

CRAFTED = 128  # images of one crafted batch, a part of the protocol: it names the streams

Keep = Callable[[str, int, Images, Images, Labels], object]
Attacks = str | Attack | Mapping[str, Attack] | None


def evaluate(
    classifier: nn.Module,
    data: ImageData | tuple[Images, Labels],
    *,
    attack: Attacks = None,
    ball: Ball = Linf(8 / 255),
    target: nn.Module | None = None,
    rules: str | Sequence[str] | None = None,
    samples: int | Sequence[int] | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    describe: Mapping[str, Any] | None = None,
    progress: bool = False,
    keep: Keep | None = None,
) -> Rows:
    """Return one row per image, attack, rule and number of samples.

    Each attack crafts once per image against ``target``; the verdicts on the final images are
    voted from members of a stream that the attack never saw. All rules and all numbers of
    samples come from one run of the largest number.

    Args:
        classifier: a `SmoothedClassifier`, or any module (then one pass decides).
        data: images and labels.
        attack: a name in ``ATTACKS``, an attack, or a mapping from names to attacks;
            ``None`` measures clean images only. Clean images are always measured.
        ball: where the attack may move an image, in pixel units.
        target: the module that the attack sees: by default the noisy model inside the
            classifier, as in the paper.
        rules: voting rules; by default the classifier's own.
        samples: numbers of passes; by default the classifier's own.
        seed: names the streams of the attack and of the verdicts.
        out: folder of Parquet shards; work that is there already is not done again.
        describe: further columns that describe the setting, such as the model's name.
        progress: show a progress bar.
        keep: called with (attack, index of the first image, images, moved images, labels) for
            every batch that is crafted.

    Raises:
        InputError: data, names or numbers are malformed; nothing has been computed then.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> smooth = SmoothedClassifier(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=4)
    >>> rows = evaluate(smooth, (torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])), attack="pgd")
    >>> len(rows)  # 3 images, clean and attacked
    6
    """
    if not isinstance(classifier, SmoothedClassifier):
        classifier = SmoothedClassifier(classifier, samples=1)
    images, labels = images_and_labels(data)
    rules = [rules] if isinstance(rules, str) else rules
    samples = [samples] if isinstance(samples, int) else samples
    check_ball(ball)
    work = _Evaluation(
        classifier=classifier,
        target=classifier.model if target is None else target,
        images=images,
        labels=labels,
        attacks=_attacks(attack),
        ball=ball,
        rules={name: rule_of(name) for name in rules} if rules else _own_rule(classifier),
        samples=sorted(set(samples or [classifier.samples])),
        seed=seed,
        describe=dict(describe or {}),
        keep=keep,
    )
    work.check()
    if isinstance(data, ImageData) and len(data.classes) != work.classes:
        raise InputError(
            f"the model tells {work.classes} classes apart, {data.name} has {len(data.classes)}"
        )
    return work.run(Store(out), progress)


@dataclass
class _Evaluation:
    classifier: SmoothedClassifier
    target: nn.Module
    images: Images
    labels: Labels
    attacks: dict[str, Attack | None]
    ball: Ball
    rules: dict[str, Rule]
    samples: list[int]
    seed: int
    describe: dict[str, Any] = field(default_factory=dict)
    keep: Keep | None = None
    classes: int = 0

    def check(self) -> None:
        """Refuse bad input before any work starts."""
        check_images(self.images)
        check_labels(self.labels, self.images)
        if len(self.images) == 0:
            raise InputError("there are no images to evaluate")
        if self.samples[0] < 1:
            raise InputError(f"samples must be at least 1, not {self.samples[0]}")
        for model in (self.classifier.model, self.target):
            check_eval(model)
            self.classes = _classes(model, self.images[:1])
            check_labels(self.labels, self.images, self.classes)

    def run(self, store: Store, progress: bool) -> Rows:
        """Do every unit of work that ``store`` lacks: an attack on one batch of images."""
        units = {
            f"{name}-{at:06d}-{digest}": (name, at)
            for name, digest in self._digests().items()
            for at in range(0, len(self.images), CRAFTED)
        }
        processes = Processes()
        if processes.count > 1 and store.folder is None:
            raise InputError("several processes share their rows through a folder: give out=")
        mine = processes.share(list(units))
        with _bar(progress and processes.main) as bar:
            task = bar.add_task("evaluating", total=len(mine) * self.samples[-1])
            for unit in mine:
                name, at = units[unit]
                bar.update(task, description=f"{name}, images from {at} on")
                if store.has(unit):
                    bar.advance(task, self.samples[-1])
                else:
                    store.write(unit, self._rows(name, at, partial(bar.advance, task)))
        processes.wait()
        return store.read(list(units))

    def _rows(self, name: str, at: int, advance: Callable[[], None]) -> Rows:
        batch = slice(at, at + CRAFTED)
        device = next((p.device for p in self.target.parameters()), self.images.device)
        images, labels = self.images[batch].to(device), self.labels[batch].to(device)
        with Meter().on(self.target) as meter:
            moved = self._craft(name, at, images, labels)
        if self.keep is not None:
            self.keep(name, at, images, moved, labels)
        radius = 0.0 if name == CLEAN else self.ball.radius
        about_image = {
            "image": list(range(at, at + len(images))),
            "label": labels.tolist(),
            "distance": self.ball.distance(moved, images).tolist(),
            "forwards": [meter.forwards / len(images)] * len(images),
            "backwards": [meter.backwards / len(images)] * len(images),
        }
        setting = self.describe | {"seed": self.seed, "attack": name, "radius": radius}
        tables = [
            _table(
                about_image, setting | {"rule": rule, "samples": samples}, verdict, first, labels
            )
            for rule, samples, verdict, first in self._vote(moved, advance)
        ]
        rows = pa.concat_tables(tables)
        cost = {"attack": name, "images": f"{len(images)}", "seconds": f"{meter.seconds:.3f}"}
        return rows.replace_schema_metadata(cost)

    def _craft(self, name: str, at: int, images: Images, labels: Labels) -> Images:
        attack = self.attacks[name]
        if attack is None:
            return images
        generator = stream(self.seed, "attack", name, at)
        with parameters_frozen(self.target):
            return attack(self.target, images, labels, self.ball, generator=generator).detach()

    def _vote(
        self, images: Images, advance: Callable[[], None]
    ) -> list[tuple[str, int, Tensor, Tensor]]:
        """Return (rule, samples, verdicts, (N, K) passes that put each class first)."""
        tallies = {name: Tally(rule) for name, rule in self.rules.items()}
        firsts = Tally("prediction")
        found = []
        smooth = self.classifier
        key = derive_seed(self.seed, "verdict")
        run = passes(
            smooth.model,
            images,
            self.samples[-1],
            key,
            tile=smooth.tile,
            per_image=smooth.per_image,
            precision=smooth.precision,
        )
        for s, logits in enumerate(run, start=1):
            for tally in (firsts, *tallies.values()):
                tally.add(logits)
            for name, tally in tallies.items() if s in self.samples else ():
                verdict = tally.scores().argmax(1)
                found.append((name, s, verdict, torch.as_tensor(firsts.sums)))
            advance()
        return found

    def _digests(self) -> dict[str, str]:
        """Name everything that the rows of each attack depend on, so that no two are mixed."""
        smooth = self.classifier
        rules = {name: _spelt(rule.votes) for name, rule in self.rules.items()}
        said = (self.ball, rules, self.samples, self.seed, self.describe, smooth.per_image)
        how = (smooth.tile, smooth.precision)
        digest = hashlib.sha256(repr((said, how)).encode())
        for part in (self.classifier, self.target, self.images, self.labels):
            digest.update(_told(part).encode())
        named = {}
        for name, attack in self.attacks.items():
            own = digest.copy()
            own.update(_spelt(attack).encode())
            named[name] = own.hexdigest()[:12]
        return named


def _table(
    about_image: dict[str, Any],
    setting: dict[str, Any],
    verdict: Tensor,
    first: Tensor,
    labels: Labels,
) -> Rows:
    columns = {name: [value] * len(labels) for name, value in setting.items()}
    found = {
        "predicted": verdict.tolist(),
        "correct": (verdict == labels).tolist(),
        "share": (first.gather(1, verdict[:, None]).squeeze(1) / first.sum(1)).tolist(),
        "hits": first.gather(1, labels[:, None]).squeeze(1).long().tolist(),
    }
    return pa.table(about_image | columns | found)


def _own_rule(classifier: SmoothedClassifier) -> dict[str, Rule]:
    return {classifier.rule_name: classifier.rule}


def _attacks(attack: Attacks) -> dict[str, Attack | None]:
    if attack is None:
        return {CLEAN: None}
    if isinstance(attack, str):
        return {CLEAN: None, attack: choose("attack", ATTACKS, attack)}
    if isinstance(attack, Mapping):
        if CLEAN in attack:
            raise InputError(f"no attack may be called {CLEAN!r}: that names the clean images")
        return {CLEAN: None, **attack}
    return {CLEAN: None, getattr(attack, "__name__", "attack"): attack}


def _spelt(function: Callable[..., Any] | None) -> str:
    """Spell a function by what it does, without its address in memory."""
    if isinstance(function, partial):
        options = sorted((name, _told(value)) for name, value in function.keywords.items())
        return f"{_spelt(function.func)}{[_told(value) for value in function.args]}{options}"
    code = getattr(function, "__code__", None)
    if code is None:
        return (
            f"{type(function).__qualname__}{sorted(getattr(function, '__dict__', {}).items())}"
            if function
            else ""
        )
    inside = [_told(cell.cell_contents) for cell in function.__closure__ or ()]  # type: ignore[union-attr]
    consts = [value for value in code.co_consts if not hasattr(value, "co_code")]
    return f"{function.__qualname__}{code.co_code!r}{code.co_names}{consts}{inside}"  # type: ignore[union-attr]


def _told(value: Any) -> str:
    """Spell a value by what it holds: tensors and modules neither print whole nor stay in place."""
    if isinstance(value, Tensor):
        return hashlib.sha256(_bytes(value)).hexdigest()
    if isinstance(value, nn.Module):
        weights = {name: _told(tensor) for name, tensor in value.state_dict().items()}
        return f"{value!r}{weights}"
    return _spelt(value) if callable(value) else repr(value)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _classes(model: nn.Module, image: Images) -> int:
    device = next((p.device for p in model.parameters()), image.device)
    try:
        with torch.no_grad():
            logits = model(image.to(device))
    except RuntimeError as error:
        raise InputError(
            f"the model does not take images of shape {tuple(image.shape[1:])}: {error}"
        ) from error
    if logits.ndim != 2:
        raise InputError(f"the model must return (N, K) logits, not {tuple(logits.shape)}")
    return logits.shape[1]


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), disable=not shown, transient=True)
