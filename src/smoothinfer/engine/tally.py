"""The one loop that counts votes, for prediction, evaluation, certificates, validation and audit.

Passes come from a source (an `Engine`, or seeded draws of any module), votes are counted by rules,
and a stopping rule says after how many passes an image is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from smoothinfer.engine.stopping import Fixed, Stopping, VoteSpec, stopping
from smoothinfer.engine.voting import RULES, Rule
from smoothinfer.errors import InputError
from smoothinfer.types import Counts, Images, Labels, Scores


class PassSource(Protocol):
    """Where the logits of passes come from."""

    @property
    def by_place(self) -> bool:
        """Whether a pass may answer an image differently in another place of its batch."""

    def blocks(self, images: Images, first: int, samples: int) -> Iterator[Tensor]:
        """Yield logits (S, N, K) of passes ``first`` to ``first + samples - 1``, some at a time."""


@dataclass(frozen=True)
class Prediction:
    """The verdicts on N images.

    Attributes:
        labels: (N,) the decision of the rule.
        counts: (N, K) number of passes that put each class first.
        samples: (N,) passes used.
        scores: (N, K) of the rule, log scale.
        decided: (N,) whether the stopping rule was satisfied; with ``"fixed"`` always.
    """

    labels: Labels
    counts: Counts
    samples: Tensor
    scores: Scores
    decided: Tensor

    def split(self, sizes: Sequence[int]) -> list[Prediction]:
        """Return the verdicts on the first ``sizes[0]`` images, the next ``sizes[1]``, ..."""
        parts = (field.split(list(sizes)) for field in vars(self).values())
        return [Prediction(*each) for each in zip(*parts, strict=True)]


class Tally:
    """The votes on N images so far.

    Sums are kept in float64 and added pass by pass, so that they depend neither on the order of
    images nor on how many passes ran together.

    Attributes:
        passes: number of passes run.
        used: (N,) passes counted for each image.
        decided: (N,) whether the stopping rule is satisfied.
        counts: (N, K) number of passes that put each class first.

    >>> tally = Tally(2, [RULES["soft"]], torch.device("cpu"))
    >>> tally.add(torch.arange(2), torch.tensor([[[0.0, 1.0], [3.0, 1.0]]]))
    >>> tally.counts.tolist()
    [[0, 1], [1, 0]]
    """

    def __init__(self, images: int, rules: Sequence[Rule], device: torch.device) -> None:
        self.passes = 0
        self.used, self.counts = torch.zeros(2, images, dtype=torch.int64, device=device)
        self.decided = torch.zeros(images, dtype=torch.bool, device=device)
        self._sums = {id(rule): torch.empty(0) for rule in rules if rule is not RULES["prediction"]}
        self._rules = rules

    def add(self, rows: Tensor, block: Tensor) -> None:
        """Count passes of the images ``rows`` (n,): their logits ``block`` (S, n, K)."""
        classes = block.shape[2]
        if self.counts.ndim == 1:
            self.counts = self.counts[:, None].repeat(1, classes)
            self._sums = {key: self.counts.double() for key in self._sums}
        self.counts[rows] += F.one_hot(block.argmax(2), classes).sum(0)
        for rule in self._rules:
            if id(rule) in self._sums:
                sums = self._sums[id(rule)]
                total = sums[rows]
                for vote in votes_of(rule, block).double():
                    total += vote
                sums[rows] = total
        self.used[rows] += len(block)
        self.passes += len(block)

    def sums(self, rule: Rule) -> Tensor:
        """Return the summed votes (N, K) of ``rule``, in float64."""
        return self.counts.double() if rule is RULES["prediction"] else self._sums[id(rule)]

    def prediction(self, rule: Rule) -> Prediction:
        """Return the verdicts of ``rule`` on the votes so far."""
        scores = rule.scores(self.sums(rule) / self.used[:, None]).float()
        used, decided = self.used.clone(), self.decided.clone()
        return Prediction(scores.argmax(1), self.counts.clone(), used, scores, decided)


def votes_of(rule: Rule, block: Tensor) -> Tensor:
    """Return the votes (S, n, K) of S passes with logits ``block`` (S, n, K)."""
    return rule.votes(block.float().flatten(0, 1)).unflatten(0, block.shape[:2])


def count_votes(
    source: PassSource,
    images: Images,
    rules: Sequence[Rule],
    stop: Stopping,
    snapshots: Collection[int] = (),
    advance: Callable[[int], object] = lambda passes: None,
) -> Iterator[Tally]:
    """Run passes until ``stop`` has decided every image; yield the one tally at ``snapshots``.

    At each checkpoint of ``stop`` decided images leave, and the others fill the tiles. Where a pass
    depends on an image's place in its batch, and the answer must be that of all passes, decided
    images stay in the batch and their votes no longer count.

    Args:
        source: gives the logits.
        images: (N, C, H, W).
        rules: whose votes are summed.
        stop: decides when an image needs no more passes.
        snapshots: numbers of passes at which to yield, besides the end.
        advance: called with the number of passes just counted.
    """
    tally = Tally(len(images), rules, images.device)
    active, first = torch.arange(len(images), device=images.device), 0
    for checkpoint in stop.checkpoints():
        stay = stop.exactly and source.by_place
        shown = images if stay or len(active) == len(images) else images[active]
        for block in source.blocks(shown, first, checkpoint - first):
            logits = block[:, active] if len(shown) > len(active) else block
            for part in _split(logits, tally.passes, snapshots):
                tally.add(active, part)
                stop.observe(active, part)
                advance(len(part))
                if tally.passes in snapshots and tally.passes < checkpoint:
                    yield tally
        first = checkpoint
        decided = stop.decided(tally, active)
        tally.decided[active] = decided
        if checkpoint in snapshots:
            yield tally
        active = active[~decided]
        if len(active) == 0:
            break
    if tally.passes not in snapshots:
        yield tally


def _split(block: Tensor, done: int, snapshots: Collection[int]) -> Iterator[Tensor]:
    """Yield the parts of ``block``, whose first pass is number ``done``, between snapshots."""
    inside = sorted(at - done for at in snapshots if done < at < done + len(block))
    ends = [*inside, len(block)]
    for begin, end in zip([0, *inside], ends, strict=True):
        yield block[begin:end]


def final_tally(source: PassSource, images: Images, rules: Sequence[Rule], stop: Stopping) -> Tally:
    """Return the tally when ``stop`` has decided every image; see `count_votes`."""
    *_, last = count_votes(source, images, rules, stop)
    return last


def count_first(source: PassSource, images: Images, samples: int) -> Counts:
    """Return how many of ``samples`` passes put each class first, (N, K)."""
    return final_tally(source, images, [], Fixed(samples)).counts


def vote(
    source: PassSource,
    images: Images,
    rules: Mapping[str, Rule],
    samples: Sequence[int],
    *,
    classes: int,
    stop: str = "fixed",
    delta: float = 1e-3,
    advance: Callable[[int], object] = lambda passes: None,
) -> dict[tuple[str, int], Prediction]:
    """Return the verdicts of every rule at every number of passes.

    Without early stopping all of them come out of one run of the largest number.

    Args:
        source: gives the logits.
        images: (N, C, H, W).
        rules: by name.
        samples: the most passes of an image, one or several numbers.
        classes: K.
        stop: a name in ``STOPS``.
        delta: probability of a decided answer other than that of infinitely many passes.
        advance: called with the number of passes just counted.

    Raises:
        InputError: the stopping rule is unknown or does not suit a voting rule, or a number is out
            of range.
    """
    if classes < 2:
        raise InputError(f"a vote needs at least 2 classes, the model has {classes}")
    if stop == "fixed":
        counts = sorted(set(samples))
        chosen = list(rules.values())
        stopping(stop, VoteSpec(chosen[0], counts[0], delta, classes), len(images))
        run = count_votes(source, images, chosen, Fixed(counts[-1]), counts, advance)
        every = torch.ones(len(images), dtype=torch.bool, device=images.device)
        return {
            (name, tally.passes): replace(tally.prediction(rule), decided=every)
            for tally in run
            for name, rule in rules.items()
        }
    found = {}
    for name, rule in rules.items():
        for most in sorted(set(samples)):
            criterion = stopping(stop, VoteSpec(rule, most, delta, classes), len(images))
            *_, tally = count_votes(source, images, [rule], criterion, advance=advance)
            found[name, most] = tally.prediction(rule)
    return found
