"""The model under audit, what is known of it, and the attacks already tried on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from smoothinfer.attacks import pgd
from smoothinfer.attacks.eot import is_random
from smoothinfer.runtime.modes import device_of
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.numerics.balls import Ball
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream
from smoothinfer.smoothing.classifier import SmoothedClassifier, frozen
from smoothinfer.engine.voting import RULES, Rule
from smoothinfer.types import Images, Labels

BATCH = 128


@dataclass(frozen=True)
class Effort:
    """How much work the checks may do.

    Attributes:
        samples: most passes of a vote; each image gets what its decision needs.
        steps, draws: of the direct attack on random models.
        static_steps, static_starts: of the direct attack on static models, which costs less.
        eot: numbers of draws that are compared.
        longer: how many times as many steps are compared with the direct attack's.
        restarts: how many times as many starts are compared with the direct attack's.
        queries: of Square.
        points: random points tried for every survivor.
        few: images of the dear checks.
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
class Subject:
    """A model and the images it is audited on.

    Args:
        model: what the attacks see: a random or a static module, in eval mode.
        images, labels: of the audit.
        ball: what the attacker may do.
        effort: how much work to do.
        seed: names all streams.
        seen: SHA-256 of the images that the model or its settings were chosen on.
        rule: how the passes are counted.
        samples: most passes of a vote, where the classifier has fewer than ``effort``.
        voted: whether somebody votes on its passes, as if it were random.

    Attributes:
        random: whether two passes differ.
        differentiable: whether it has gradients at all.
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
    differentiable: bool = field(init=False)
    _kept: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        device = device_of(self.model, self.images)
        self.images, self.labels = self.images.to(device), self.labels.to(device)
        self.random = is_random(self.model, self.images)
        with torch.enable_grad(), isolated_rng(self.seed):
            asked = self.model(self.images[:2].clone().requires_grad_())
        self.differentiable = asked.requires_grad

    @property
    def base(self) -> nn.Module | None:
        """The same network with its noise off, where there is such a thing."""
        return self.model.module if isinstance(self.model, NoisyModel) else None

    @property
    def passes(self) -> int:
        """Most passes of a vote."""
        return min(self.effort.samples, self.samples or self.effort.samples) if self.random else 1

    @property
    def draws(self) -> int:
        """Draws of the direct attack: one is all there is on a static model."""
        return self.effort.draws if self.random else 1

    @property
    def steps(self) -> int:
        """Steps of the direct attack."""
        return self.effort.steps if self.random else self.effort.static_steps

    @property
    def starts(self) -> int:
        """Random starts of the direct attack; on a random model noise is start enough."""
        return 1 if self.random else self.effort.static_starts

    def few(self) -> slice:
        """Return the images of the dear checks."""
        return slice(0, min(self.effort.few, len(self.images)))

    def right(self, images: Images, *key: object, rows: Tensor | slice | None = None) -> Tensor:
        """Return whether the vote on ``images`` is right, (N,), from the stream called ``key``.

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
        rows: Tensor | slice | None = None,
        ball: Ball | None = None,
    ) -> Images:
        """Return the images of ``rows`` moved by ``attack``, in batches, from a named stream."""
        images, labels = self.images, self.labels
        if rows is not None:
            images, labels = images[rows], labels[rows]
        found = [
            attack(
                self.model if target is None else target,
                images[at : at + BATCH],
                labels[at : at + BATCH],
                ball or self.ball,
                generator=stream(self.seed, "audit", name, at),
            )
            for at in range(0, len(images), BATCH)
        ]
        return torch.cat(found) if found else images

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gives, made the first time only."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def climb(self, draws: int) -> Images:
        """Return all images after PGD with so many draws in each gradient."""

        def run() -> Images:
            return self.attack(f"pgd {draws}", self.pgd(draws=draws, restarts=self.starts))

        found: Images = self.once(f"pgd {draws}", run)
        return found

    def pgd(
        self, steps: int | None = None, radius: float | None = None, **options: Any
    ) -> Callable[..., Images]:
        """Return PGD whose steps go two and a half times through the radius."""
        steps = steps or self.steps
        size = 2.5 * (self.ball.radius if radius is None else radius) / steps
        return partial(pgd, steps=steps, step_size=size, **({"draws": self.draws} | options))

    def direct(self) -> Images:
        """Return all images after the direct attack, that others are compared with."""
        return self.climb(self.draws) if self.differentiable else self.images

    def clean(self) -> Tensor:
        """Return (N,) whether the vote is right on the images as they are."""
        found: Tensor = self.once("clean", lambda: self.right(self.images, "clean"))
        return found

    def attacked(self) -> Tensor:
        """Return (N,) whether the vote is right after the direct attack."""
        found: Tensor = self.once("attacked", lambda: self.right(self.direct(), "fresh"))
        return found

    def survivors(self) -> Tensor:
        """Return the indices of images that a vote gets right after the direct attack.

        Not the vote of `attacked`: what the survivors of one vote lose to another is chance, not
        the work of the attack they are compared under.
        """

        def find() -> Tensor:
            return self.right(self.direct(), "survivors").nonzero().flatten()

        found: Tensor = self.once("survivors", find)
        return found

    def against(self, name: str, attack: Callable[..., Images]) -> tuple[Tensor, Tensor]:
        """Attack the survivors; return (N,) who was right before and who is right after.

        By the same fresh vote; the images that did not survive count as wrong in both.
        """
        rows = self.survivors()
        after = torch.zeros_like(self.attacked())
        before = after.clone()
        before[rows] = self.attacked()[rows]
        after[rows] = self.right(self.attack(name, attack, rows=rows), "fresh", rows=rows)
        return before, after

    def still(self, samples: int) -> nn.Module:
        """Return the model held at ``samples`` passes."""
        return frozen(self.model, derive_seed(self.seed, "audit", "frozen"), samples)
