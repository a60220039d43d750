"""The units of an evaluation: attack a batch, vote on it with passes that the attack never saw."""

import functools
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from smoothinfer.attacks import Attack
from smoothinfer.attacks.given_examples import GivenExamples
from smoothinfer.attacks.kept_stages import keep_stages
from smoothinfer.engine.prediction import Prediction
from smoothinfer.engine.stopping import VoteSpec
from smoothinfer.engine.stops import stopping
from smoothinfer.engine.tally import vote
from smoothinfer.engine.voting import Rule
from smoothinfer.errors import InputError, check_images, check_labels, plain_int
from smoothinfer.evaluation.costs import Cost
from smoothinfer.evaluation.example_cache import ExampleCache, is_ours, queried_by
from smoothinfer.evaluation.keys import Keys, digest_of_key
from smoothinfer.evaluation.makers import maker
from smoothinfer.evaluation.rows import CLEAN, Rows
from smoothinfer.numerics.balls import Ball, is_eight_bit
from smoothinfer.numerics.precision import tile_for
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.runtime.modes import check_eval, count_classes, device_of, frozen_parameters
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images, Labels

UNIT_IMAGES = 128  # images of one unit, a part of the protocol: it names the streams
Verdicts = Mapping[tuple[str, int], Prediction]  # by rule and number of passes


@dataclass
class Evaluation:
    """One classifier, its data and attacks, as units of work: one attack on one batch of images.

    Attributes:
        classifier: gives the verdicts.
        target: the module that the attacks see.
        images, labels: the data.
        attacks: by name; ``None`` stands for the clean images.
        ball: where the attacks may move an image.
        rules, samples: of the votes, all of them.
        seed: names the streams.
        stop, delta: when a vote ends, see `SmoothedClassifier.predict`.
        describe: further columns of the rows.
        cache: of adversarial examples.
    """

    classifier: SmoothedClassifier
    target: nn.Module
    images: Images
    labels: Labels
    attacks: dict[str, Attack | None]
    ball: Ball
    rules: dict[str, Rule]
    samples: list[int]
    seed: int
    stop: str = "fixed"
    delta: float = 1e-3
    describe: dict[str, Any] = field(default_factory=dict)
    cache: ExampleCache | None = None
    classes: int = 0

    def check(self) -> None:
        """Refuse bad input before any work starts."""
        plain_int("seed", self.seed)
        check_images(self.images)
        check_labels(self.labels, self.images)
        if len(self.images) == 0:
            raise InputError("there are no images to evaluate")
        for model in (self.classifier.model, self.target):
            check_eval(model)
            self.classes = count_classes(model, self.images)
            check_labels(self.labels, self.images, self.classes)
        for rule in self.rules.values():
            spec = VoteSpec(rule, self.samples[0], self.delta, max(2, self.classes))
            stopping(self.stop, spec, 1)
        for attack in self.attacks.values():
            if isinstance(attack, GivenExamples):
                attack.fit(self.images, self.labels)
            if is_ours(attack):  # checks its options and its ball before it looks at images
                attack(self.target, self.images[:0], self.labels[:0], self.ball)

    @functools.cached_property
    def units(self) -> dict[str, tuple[str, int]]:
        """Names of the units, each with its attack and the first image of its batch."""
        return {
            f"{name}-{at:06d}-{digest_of_key(self.keys.of_rows(name, at))}": (name, at)
            for name in self.attacks
            for at in range(0, len(self.images), UNIT_IMAGES)
        }

    @functools.cached_property
    def keys(self) -> Keys:
        """Digests of everything that rows and adversarial examples depend on."""
        return Keys(self, UNIT_IMAGES, _CODE_OF_EXAMPLES, (*_CODE_OF_ROWS, SmoothedClassifier))

    @property
    def units_at_once(self) -> int:
        """How many units fill the tile that suits the device: their votes run together.

        One, where adversarial examples are not kept: a kill then loses one batch's attack.
        """
        smooth = self.classifier
        if self.cache is None:
            return 1
        tile = smooth.tile
        if tile is None:
            device = device_of(smooth.model, self.images)
            tile = tile_for(self.images[:1].to(device), smooth.precision)
        return max(1, tile // UNIT_IMAGES)

    def run_units(
        self, units: Sequence[str], advance: Callable[[int], object] = lambda passes: None
    ) -> list[Rows]:
        """Return the rows of each of ``units``; all are in memory at once.

        ``advance`` is called with passes times units, after every pass of a vote.
        """
        places = [self.units[unit] for unit in units]
        examples = [self.examples(*place) for place in places]
        found = self._vote([adversarial for adversarial, _ in examples], advance)
        return [
            self._to_rows(self.keys.of_rows(*place), *place, *example, verdicts)
            for place, example, verdicts in zip(places, examples, found, strict=True)
        ]

    def _vote(
        self, batches: Sequence[Images], advance: Callable[[int], object]
    ) -> Sequence[Verdicts]:
        """Return the verdicts on each batch; the same pass of all batches runs at once.

        A pass costs a GPU hardly more for a thousand images than for a hundred. Where a pass
        depends on an image's place among others (left-on dropout), the batches run one after the
        other, so that nothing depends on their neighbours.
        """
        smooth = self.classifier
        seed = derive_seed(self.seed, "verdict") if smooth.seed is None else smooth.seed
        engine = smooth.engine(batches[0], seed)
        how: dict[str, Any] = {"classes": self.classes, "stop": self.stop, "delta": self.delta}
        count = functools.partial(vote, engine, rules=self.rules, samples=self.samples, **how)
        if engine.by_place:
            return [count(images=batch, advance=advance) for batch in batches]
        whole = torch.cat([*batches])
        joint = count(images=whole, advance=lambda passes: advance(passes * len(batches)))
        sizes = [len(batch) for batch in batches]
        split = {key: answer.split(sizes) for key, answer in joint.items()}
        return [{key: parts[at] for key, parts in split.items()} for at in range(len(batches))]

    def _to_rows(
        self,
        key: dict[str, str],
        name: str,
        at: int,
        adversarial: Images,
        cost: Cost,
        verdicts: Verdicts,
    ) -> Rows:
        images, labels = self._batch(at)
        radius = 0.0 if name == CLEAN else self.ball.radius
        about_image = {
            "image": list(range(at, at + len(images))),
            "label": labels.tolist(),
            "distance": self.ball.distance(adversarial, images).tolist(),
            "eight_bit": is_eight_bit(adversarial).tolist(),
            "forwards": [cost.forwards / len(images)] * len(images),
            "backwards": [cost.backwards / len(images)] * len(images),
        }
        setting = self.describe | {"seed": self.seed, "attack": name, "radius": radius}
        norm = type(self.ball).__name__.lower()  # the class itself would tie clean rows to its code
        if name != CLEAN and norm != "linf":
            setting["norm"] = norm
        rows = pa.concat_tables(
            _verdict_rows(about_image, setting | {"rule": rule, "samples": samples}, each, labels)
            for (rule, samples), each in verdicts.items()
        )
        about = {"attack": name, "images": f"{len(images)}", "seconds": f"{cost.seconds:.3f}"}
        about |= {**maker(), "key": json.dumps(key)}
        return rows.replace_schema_metadata(about)

    def _batch(self, at: int) -> tuple[Images, Labels]:
        device = device_of(self.target, self.images)
        batch = slice(at, at + UNIT_IMAGES)
        return self.images[batch].to(device), self.labels[batch].to(device)

    def examples(self, name: str, at: int) -> tuple[Images, Cost]:
        """Return the batch from image ``at`` on under the attack ``name``, and its cost."""
        images, labels = self._batch(at)
        if self.attacks[name] is None:
            return images, Cost()
        key = self.keys.of_examples(name, at) if self.cache is not None else ""
        if self.cache is not None and self.cache.has(key):
            adversarial, cost = self.cache.get(key)
            return adversarial.to(images), cost
        with Cost().on(queried_by(self.attacks[name], self.target)) as cost:
            stages = None if self.cache is None else self.cache.stages(key, cost)
            with keep_stages(stages):
                adversarial = self.run_attack(name, at, images, labels)
        if self.cache is not None and stages is not None:
            self.cache.put(key, adversarial, cost)
            stages.remove()
        return adversarial, cost

    def run_attack(self, name: str, at: int, images: Images, labels: Labels) -> Images:
        """Run the attack ``name`` on a batch that begins with image ``at``."""
        attack = self.attacks[name]
        if attack is None:
            return images
        generator = stream(self.seed, "attack", name, at)
        place = {"at": at} if getattr(attack, "needs_place", False) else {}
        with frozen_parameters(self.target):
            found = attack(
                self.target, images, labels, self.ball, generator=generator, **place
            ).detach()
        return self._within_ball(name, found, images)

    def _within_ball(self, name: str, points: Images, images: Images) -> Images:
        """Return ``points``, projected back where a user's attack left the ball."""
        if points.shape != images.shape or not points.isfinite().all():
            shown = f"{tuple(points.shape)} images" if points.isfinite().all() else "NaN pixels"
            raise InputError(f"attack {name!r} returned {shown} for {tuple(images.shape)}")
        far = float(self.ball.distance(points, images).max())
        low, high = (float(end) for end in points.aminmax())
        if far <= self.ball.radius * 1.001 + 1e-6 and low >= -1e-6 and high <= 1 + 1e-6:
            return points
        warnings.warn(
            f"attack {name!r} moved images by up to {far:.4g} to pixels from {low:.4g} to "
            f"{high:.4g}, out of {self.ball} and [0, 1]: they are projected back",
            stacklevel=2,
        )
        return self.ball.project(points, images)


def _verdict_rows(
    about_image: dict[str, Any], setting: dict[str, Any], verdict: Prediction, labels: Labels
) -> Rows:
    columns = {name: [value] * len(labels) for name, value in setting.items()}
    counts = verdict.counts.double()
    judged = {
        "predicted": verdict.labels.tolist(),
        "correct": (verdict.labels == labels).tolist(),
        "share": (counts.gather(1, verdict.labels[:, None]).squeeze(1) / counts.sum(1)).tolist(),
        "hits": verdict.counts.gather(1, labels[:, None]).squeeze(1).tolist(),
        "used": verdict.samples.tolist(),
    }
    return pa.table(about_image | columns | judged)


_CODE_OF_EXAMPLES = (Evaluation.run_attack, Evaluation._within_ball)
_CODE_OF_ROWS = (Evaluation._vote, Evaluation._to_rows, Evaluation._batch, _verdict_rows)
