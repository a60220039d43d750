"""The model under audit, its properties, and the attacks already run on it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.attacks import pgd
from smoothinfer.attacks.checks import is_random
from smoothinfer.attacks.gate import own_tensor, plain_images
from smoothinfer.data.selection import choose_rows
from smoothinfer.engine.voting import RULES, Rule
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import device_of
from smoothinfer.smoothing import classifier
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images, Labels

BATCH = 128


@dataclass(frozen=True)
class Effort:
    """The amount of work of the checks.

    Attributes:
        samples: most passes of a vote; each image gets what its decision needs.
        steps, draws: of the direct attack on random models.
        static_steps, static_starts: of the direct attack on static models, which costs less.
        eot: numbers of draws that are compared.
        longer: multiples of the direct attack's steps that are compared with it.
        restarts: multiple of the direct attack's starts that is compared with it.
        queries: of Square.
        points: random points tried for every survivor.
        few: images of the expensive checks.
        votes: repeated votes of the persistent attacker.
    """

    samples: int = 512
    steps: int = 50
    draws: int = 16
    static_steps: int = 50
    static_starts: int = 5
    eot: tuple[int, ...] = (1, 4, 16, 64)
    longer: tuple[int, ...] = (5, 20)
    restarts: int = 5
    queries: int = 1000
    points: int = 1000
    few: int = 1000
    votes: int = 100


FULL = Effort()
QUICK = Effort(
    samples=64,
    steps=30,
    draws=4,
    eot=(1, 4, 16),
    longer=(3,),
    static_starts=3,
    restarts=2,
    queries=150,
    points=60,
    few=64,
    votes=10,
)


@dataclass
class AuditContext:
    """A model and the images it is audited on.

    Args:
        model: the module that the attacks see, random or static, in eval mode.
        images, labels: of the audit.
        ball: what the attacker may do.
        effort: amount of work.
        seed: names all streams.
        seen: SHA-256 of the images that the model or its settings were chosen on.
        rule: how the passes are counted.
        samples: most passes of a vote, where the classifier has fewer than ``effort``.
        voted: whether its passes are put to the vote, as if it were random.

    Attributes:
        random: whether two passes differ.
        no_gradient: why attacks that follow gradients cannot be run; ``""`` if they can.
        passes: most passes of a vote.
        draws, steps, starts: of the direct attack. A static model has one draw; the noise of a
            random one varies its single start.
    """

    model: nn.Module
    images: Images
    labels: Labels
    ball: Ball
    effort: Effort = QUICK
    seed: int = 0
    seen: frozenset[bytes] | None = None
    rule: Rule = RULES["prediction"]
    samples: int | None = None
    voted: bool = False
    random: bool = field(init=False)
    no_gradient: str = field(init=False)
    passes: int = field(init=False)
    draws: int = field(init=False)
    steps: int = field(init=False)
    starts: int = field(init=False)
    _kept: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        device = device_of(self.model, self.images)
        self.images = plain_images(self.model, self.images).to(device)
        self.labels = own_tensor(self.labels).to(device)
        effort, random = self.effort, is_random(self.model, self.images)
        self.random = random
        self.passes = min(effort.samples, self.samples or effort.samples) if random else 1
        self.draws = effort.draws if random else 1
        self.steps = effort.steps if random else effort.static_steps
        self.starts = 1 if random else effort.static_starts
        self.no_gradient = self._find_gradient()

    def _find_gradient(self) -> str:
        images = self.images[:2].clone().requires_grad_()
        with isolated_rng(self.seed):
            try:
                logits = logits_of(self.model, images)
                if not logits.requires_grad:
                    return "the logits are cut off from the image by torch.no_grad, detach or numpy"
                (slope,) = torch.autograd.grad(logits.sum(), images, allow_unused=True)
            except Exception as error:  # a user's forward, or its backward, may fail in any way
                first = str(error).strip().split("\n")[0]
                return f"{type(error).__name__}: {first}"[:200]
        return "" if slope is not None else "the logits do not depend on the image"

    @property
    def differentiable(self) -> bool:
        """Whether attacks can follow gradients."""
        return not self.no_gradient

    @property
    def base(self) -> nn.Module | None:
        """The same network without its noise, for a `NoisyModel`."""
        return self.model.module if isinstance(self.model, NoisyModel) else None

    def few(self, most: int | None = None) -> Tensor:
        """Return the rows of the images of the expensive checks, at most ``most`` of them."""
        return self.choose(torch.arange(len(self.labels), device=self.labels.device), most)

    def choose(self, rows: Tensor, most: int | None = None) -> Tensor:
        """Return some of ``rows``, of each class its share: the same for everybody.

        The first ones would be of one class where the data are in the order of their classes.
        """
        labels = self.labels[rows].cpu()
        return rows[choose_rows(labels, most or self.effort.few).to(rows.device)]

    def is_correct(self, images: Images, *key: object, rows: Tensor | None = None) -> Tensor:
        """Return whether the vote on ``images`` is correct, (N,), from the stream called ``key``.

        Images that are decided early get fewer passes.
        """
        labels = self.labels if rows is None else self.labels[rows]
        if len(images) == 0:
            return torch.zeros(0, dtype=torch.bool, device=images.device)
        samples = self.passes
        seed = derive_seed(self.seed, "audit", *key)
        voter = SmoothedClassifier(self.model, samples, rule=self.rule, seed=seed)
        stop = "ppr" if self.rule is RULES["prediction"] and samples > 1 else "fixed"
        return voter.predict(images, stop=stop).labels == labels

    def attack(
        self,
        name: str,
        attack: Callable[..., Images],
        *,
        target: nn.Module | None = None,
        rows: Tensor | None = None,
        ball: Ball | None = None,
    ) -> Images:
        """Return the images of ``rows`` under ``attack``, in batches, from a named stream."""
        images, labels = self.images, self.labels
        if rows is not None:
            images, labels = images[rows], labels[rows]
        batches = [
            attack(
                self.model if target is None else target,
                images[at : at + BATCH],
                labels[at : at + BATCH],
                ball or self.ball,
                generator=stream(self.seed, "audit", name, at),
            )
            for at in range(0, len(images), BATCH)
        ]
        return torch.cat(batches) if batches else images

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return the result of ``make``, computed the first time only."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def pgd_with(self, draws: int) -> Images:
        """Return all images after PGD with so many draws in each gradient."""

        def run() -> Images:
            return self.attack(f"pgd {draws}", self.pgd(draws=draws, restarts=self.starts))

        found: Images = self.once(f"pgd {draws}", run)
        return found

    def pgd(
        self, steps: int | None = None, radius: float | None = None, **options: Any
    ) -> Callable[..., Images]:
        """Return PGD whose steps add up to two and a half radii."""
        steps = steps or self.steps
        size = 2.5 * (self.ball.radius if radius is None else radius) / steps
        return partial(pgd, steps=steps, step_size=size, **({"draws": self.draws} | options))

    def direct(self) -> Images:
        """Return all images after the direct attack, with which other attacks are compared."""
        return self.pgd_with(self.draws) if self.differentiable else self.images

    def clean(self) -> Tensor:
        """Return (N,) whether the vote is correct on the images as they are."""
        found: Tensor = self.once("clean", lambda: self.is_correct(self.images, "clean"))
        return found

    def attacked(self) -> Tensor:
        """Return (N,) whether the vote is correct after the direct attack."""
        found: Tensor = self.once("attacked", lambda: self.is_correct(self.direct(), "fresh"))
        return found

    def survivors(self) -> Tensor:
        """Return the indices of images whose vote is correct after the direct attack.

        It is another vote than that of `attacked`: images that one vote gets right and another
        wrong are lost by chance, not by the attack that is compared.
        """

        def find() -> Tensor:
            return self.is_correct(self.direct(), "survivors").nonzero().flatten()

        found: Tensor = self.once("survivors", find)
        return found

    def compare_attack(self, name: str, attack: Callable[..., Images]) -> tuple[Tensor, Tensor]:
        """Attack the survivors; return (N,) whether each was correct before, and after.

        Both by the same fresh vote; images that did not survive count as wrong in both.
        """
        rows = self.survivors()
        after = torch.zeros_like(self.attacked())
        before = after.clone()
        before[rows] = self.attacked()[rows]
        after[rows] = self.is_correct(self.attack(name, attack, rows=rows), "fresh", rows=rows)
        return before, after

    def frozen(self, samples: int) -> SmoothedClassifier:
        """Return the model with ``samples`` fixed passes."""
        return classifier.frozen(self.model, derive_seed(self.seed, "audit", "frozen"), samples)
