"""The units of an evaluation: craft one batch, vote on it with members the attack never saw."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from smoothinfer.attacks import Attack
from smoothinfer.errors import InputError, check_images, check_labels
from smoothinfer.engine.tally import Verdict, vote
from smoothinfer.evaluation.example_cache import Crafted, asked_by, is_ours
from smoothinfer.evaluation.fingerprint import spelt, spelt_out
from smoothinfer.evaluation.pass_counter import Cost, Meter
from smoothinfer.evaluation.rows import CLEAN, Rows
from smoothinfer.runtime.modes import check_eval, device_of, parameters_frozen
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.precision import tile_for
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.runtime.provenance import computer
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.engine.voting import Rule
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

    @property
    def at_once(self) -> int:
        """How many batches fill the tile that suits the device: their votes run together.

        One, where adversarial examples are not kept: a kill then loses one batch's attack.
        """
        smooth = self.classifier
        if self.crafted is None:
            return 1
        tile = smooth.tile
        if tile is None:
            device = device_of(smooth.model, self.images)
            tile = tile_for(self.images[:1].to(device), smooth.precision)
        return max(1, tile // CRAFTED)

    def do(
        self, units: Sequence[str], advance: Callable[[int], object] = lambda batches: None
    ) -> list[Rows]:
        """Return the rows of each of ``units``; all are in memory at once.

        ``advance`` is told after every pass of the vote of how many units it was.
        """
        places = [self.units[unit] for unit in units]
        examples = [self.examples(*place) for place in places]
        moved, seed = [each for each, _ in examples], derive_seed(self.seed, "verdict")
        found = vote(self.classifier, moved, self.rules, self.samples, seed, advance)
        return [
            self._rows(*place, *example, verdicts)
            for place, example, verdicts in zip(places, examples, found, strict=True)
        ]

    def _rows(
        self, name: str, at: int, moved: Images, cost: Cost, verdicts: Sequence[Verdict]
    ) -> Rows:
        images, labels = self._batch(at)
        radius = 0.0 if name == CLEAN else self.ball.radius
        about_image = {
            "image": list(range(at, at + len(images))),
            "label": labels.tolist(),
            "distance": self.ball.distance(moved, images).tolist(),
            "forwards": [cost.forwards / len(images)] * len(images),
            "backwards": [cost.backwards / len(images)] * len(images),
        }
        setting = self.describe | {"seed": self.seed, "attack": name, "radius": radius}
        rows = pa.concat_tables(_table(about_image, setting, each, labels) for each in verdicts)
        told = {"attack": name, "images": f"{len(images)}", "seconds": f"{cost.seconds:.3f}"}
        told["computer"] = computer()
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
    about_image: dict[str, Any], setting: dict[str, Any], found: Verdict, labels: Labels
) -> Rows:
    setting = setting | {"rule": found.rule, "samples": found.samples}
    columns = {name: [value] * len(labels) for name, value in setting.items()}
    first = found.firsts.double()
    judged = {
        "predicted": found.labels.tolist(),
        "correct": (found.labels == labels).tolist(),
        "share": (first.gather(1, found.labels[:, None]).squeeze(1) / first.sum(1)).tolist(),
        "hits": found.firsts.gather(1, labels[:, None]).squeeze(1).tolist(),
    }
    return pa.table(about_image | columns | judged)


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
