"""The units of an evaluation: craft one batch, vote on it with members the attack never saw."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from smoothinfer.attacks import Attack
from smoothinfer.errors import InputError, check_images, check_labels
from smoothinfer.evaluation.crafted import Crafted, asked_by, is_ours
from smoothinfer.evaluation.fingerprint import spelt, spelt_out
from smoothinfer.evaluation.meter import Cost, Meter
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.table import CLEAN, Rows
from smoothinfer.modes import check_eval, device_of, parameters_frozen
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.processes import Processes
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.smoothing.passes import passes
from smoothinfer.smoothing.voting import Rule, Tally
from smoothinfer.types import Images, Labels

CRAFTED = 128  # images of one crafted batch, a part of the protocol: it names the streams


@dataclass
class Evaluation:
    """One classifier, its data and attacks: units of work, each an attack on a batch of images."""

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
    crafted: Crafted | None = None
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
        for attack in self.attacks.values():
            if is_ours(attack):  # refuses its options and its ball before it looks for images
                attack(self.target, self.images[:0], self.labels[:0], self.ball)

    @functools.cached_property
    def units(self) -> dict[str, tuple[str, int]]:
        """Names of the units of work, each with its attack and the first image of its batch."""
        return {
            f"{name}-{at:06d}-{digest}": (name, at)
            for name, digest in self._digests().items()
            for at in range(0, len(self.images), CRAFTED)
        }

    def run(self, store: Store, progress: bool) -> Rows:
        """Do every unit of work that ``store`` lacks."""
        processes = Processes()
        if processes.count > 1 and store.folder is None:
            raise InputError("several processes share their rows through a folder: give out=")
        mine = processes.share(list(self.units))
        with bar_of_passes(progress and processes.main) as bar:
            task = bar.add_task("evaluating", total=len(mine) * self.samples[-1])
            for unit in mine:
                name, at = self.units[unit]
                bar.update(task, description=f"{name}, images from {at} on")
                if store.has(unit):
                    bar.advance(task, self.samples[-1])
                else:
                    store.write(unit, self.do(unit, partial(bar.advance, task)))
        processes.wait()
        return store.read(list(self.units))

    def do(self, unit: str, advance: Callable[[], object] = lambda: None) -> Rows:
        """Return the rows of ``unit``; ``advance`` is called after every pass of the vote."""
        return self._rows(*self.units[unit], advance)

    def _rows(self, name: str, at: int, advance: Callable[[], object]) -> Rows:
        images, labels = self._batch(at)
        moved, cost = self.examples(name, at)
        radius = 0.0 if name == CLEAN else self.ball.radius
        about_image = {
            "image": list(range(at, at + len(images))),
            "label": labels.tolist(),
            "distance": self.ball.distance(moved, images).tolist(),
            "forwards": [cost.forwards / len(images)] * len(images),
            "backwards": [cost.backwards / len(images)] * len(images),
        }
        setting = self.describe | {"seed": self.seed, "attack": name, "radius": radius}
        tables = [
            _table(
                about_image, setting | {"rule": rule, "samples": samples}, verdict, first, labels
            )
            for rule, samples, verdict, first in self._vote(moved, advance)
        ]
        rows = pa.concat_tables(tables)
        told = {"attack": name, "images": f"{len(images)}", "seconds": f"{cost.seconds:.3f}"}
        return rows.replace_schema_metadata(told)

    @functools.cached_property
    def _spelt_target(self) -> str:
        return hashlib.sha256(spelt_out(self.target).encode()).hexdigest()

    def crafted_key(self, name: str, at: int) -> str:
        """Return the key of a batch's adversarial examples: all that they depend on."""
        assert self.crafted is not None
        batch, attack = slice(at, at + CRAFTED), self.attacks[name]
        # An attack that never asks its target gives the same examples for all targets.
        seen = self._spelt_target if asked_by(attack, self.target) is self.target else None
        world = (seen, self.ball, self.seed, self.images[batch], self.labels[batch])
        return self.crafted.key(name, at, attack, *world)

    def _batch(self, at: int) -> tuple[Images, Labels]:
        device = device_of(self.target, self.images)
        batch = slice(at, at + CRAFTED)
        return self.images[batch].to(device), self.labels[batch].to(device)

    def examples(self, name: str, at: int) -> tuple[Images, Cost]:
        """Return what the attack makes of a batch, or has made of it before, and at what cost."""
        images, labels = self._batch(at)
        if self.attacks[name] is None:
            return images, Cost()
        key = None if self.crafted is None else self.crafted_key(name, at)
        if self.crafted is not None and key is not None and self.crafted.has(key):
            moved, cost = self.crafted.get(key)
            return moved.to(images), cost
        with Meter().on(asked_by(self.attacks[name], self.target)) as meter:
            moved = self.craft(name, at, images, labels)
        if self.crafted is not None and key is not None:
            self.crafted.put(key, moved, meter.cost)
        return moved, meter.cost

    def craft(self, name: str, at: int, images: Images, labels: Labels) -> Images:
        """Return what the attack ``name`` makes of a batch that begins with image ``at``."""
        attack = self.attacks[name]
        if attack is None:
            return images
        generator = stream(self.seed, "attack", name, at)
        with parameters_frozen(self.target):
            moved = attack(self.target, images, labels, self.ball, generator=generator).detach()
        return self._within(name, moved, images)

    def _within(self, name: str, moved: Images, images: Images) -> Images:
        """Return ``moved``, brought back where an attack (somebody else's) left the ball."""
        if moved.shape != images.shape or not moved.isfinite().all():
            told = f"{tuple(moved.shape)} images" if moved.isfinite().all() else "NaN pixels"
            raise InputError(f"attack {name!r} gave {told} for {tuple(images.shape)}")
        far = float(self.ball.distance(moved, images).max())
        low, high = (float(end) for end in moved.aminmax())
        if far <= self.ball.radius * 1.001 + 1e-6 and low >= -1e-6 and high <= 1 + 1e-6:
            return moved
        warnings.warn(
            f"attack {name!r} went as far as {far:.4g} with pixels from {low:.4g} to {high:.4g}, "
            f"out of {self.ball} and [0, 1]: its images are projected back",
            stacklevel=2,
        )
        return self.ball.project(moved, images)

    def _vote(
        self, images: Images, advance: Callable[[], object]
    ) -> list[tuple[str, int, Tensor, Tensor]]:
        """Return (rule, samples, verdicts, (N, K) passes that put each class first)."""
        tallies = {name: Tally(rule) for name, rule in self.rules.items()}
        firsts = Tally("prediction")
        found = []
        smooth = self.classifier
        key = derive_seed(self.seed, "verdict") if smooth.seed is None else smooth.seed
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
        rules = {name: spelt(rule.votes) for name, rule in self.rules.items()}
        said = (self.ball, rules, self.samples, self.seed, self.describe, smooth.per_image)
        how = (smooth.tile, smooth.precision)
        digest = hashlib.sha256(repr((said, how)).encode())
        for part in (self.classifier, self.target, self.images, self.labels):
            digest.update(spelt_out(part).encode())
        named = {}
        for name, attack in self.attacks.items():
            own = digest.copy()
            own.update(spelt(attack).encode())
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


def _classes(model: nn.Module, image: Images) -> int:
    device = device_of(model, image)
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


def bar_of_passes(shown: bool) -> Progress:
    """Return a bar that counts passes and tells the time left."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), disable=not shown, transient=True)
