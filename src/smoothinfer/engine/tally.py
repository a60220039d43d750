"""The one loop that counts votes, for prediction, evaluation, certificates, validation and audit.

Passes come from a source (an `Engine`, or seeded draws of any module), votes are counted by rules,
and a stopping rule says after how many passes an image is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from smoothinfer.engine.budget import WithinBudget
from smoothinfer.engine.prediction import Prediction
from smoothinfer.engine.stopping import Fixed, Stopping, VoteSpec
from smoothinfer.engine.stops import stopping
from smoothinfer.engine.sums import FloatSums, Sums, WholeSums
from smoothinfer.engine.voting import RULES, ByRank, Rule, class_of_rank
from smoothinfer.errors import MOST_PASSES, InputError, plain_float, plain_int
from smoothinfer.types import Counts, Images


class PassSource(Protocol):
    """Where the logits of passes come from."""

    @property
    def by_place(self) -> bool:
        """Whether a pass may answer an image differently in another place of its batch."""

    def blocks(self, images: Images, first: int, samples: int) -> Iterator[Tensor]:
        """Yield logits (S, N, K) of passes ``first`` to ``first + samples - 1``, some at a time."""


class Tally:
    """The votes on N images so far.

    Sums depend neither on the order of images nor on how many passes ran together.

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
        self._rules = rules

    def _begin(self, classes: int) -> None:
        images, device = len(self.counts), self.counts.device
        self.counts = self.counts[:, None].repeat(1, classes)
        self._one = self.counts.new_ones(1)
        self._first = WholeSums(self.counts[None], [1], unit=1)
        self._by_rank, self._by_value = {}, {}
        for rule in self._rules:
            if isinstance(rule.votes, ByRank):
                weights = rule.votes.whole(classes)
                self._by_rank[id(rule)] = WholeSums.zeros(*weights, images, classes, device)
            elif rule is not RULES["prediction"]:
                self._by_value[id(rule)] = rule, FloatSums(images, classes, rule.span, device)

    def add(self, rows: Tensor, block: Tensor) -> None:
        """Count passes of the images ``rows`` (n,): their logits ``block`` (S, n, K)."""
        if self.counts.ndim == 1:
            self._begin(block.shape[2])
        first = (block.argmax(2) + rows * block.shape[2]).flatten()
        self.counts.view(-1).index_add_(0, first, self._one.expand_as(first))
        if self._by_rank:
            order = class_of_rank(block)
            for whole in self._by_rank.values():
                whole.add(rows, order)
        for rule, sums in self._by_value.values():
            sums.add(rows, votes_of(rule, block))
        self.used[rows] += len(block)
        self.passes += len(block)

    def sums(self, rule: Rule) -> Sums:
        """Return the summed votes of ``rule``."""
        if rule is RULES["prediction"]:
            return self._first
        found = self._by_rank.get(id(rule))
        return self._by_value[id(rule)][1] if found is None else found

    def prediction(self, rule: Rule) -> Prediction:
        """Return the verdicts of ``rule`` on the votes so far."""
        sums = self.sums(rule)
        scores = rule.scores(sums.totals() / self.used[:, None]).float()
        labels = sums.leaders(torch.arange(len(self.used), device=self.used.device))
        return Prediction(
            labels,
            self.counts.clone(),
            self.used.clone(),
            scores,
            self.decided.clone(),
            torch.zeros_like(self.decided),
        )


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
    images stay in the batch and their votes no longer count. Passes that ran together with those
    before a checkpoint are kept for the images that go on.

    Args:
        source: gives the logits.
        images: (N, C, H, W).
        rules: whose votes are summed.
        stop: decides when an image needs no more passes.
        snapshots: numbers of passes at which to yield, besides the end.
        advance: called with the number of passes just counted.
    """
    tally = Tally(len(images), rules, images.device)
    active, looks = torch.arange(len(images), device=images.device), {*stop.checkpoints()}
    stay, seen, last = stop.exactly and source.by_place, {*snapshots, *looks}, max(looks)
    while len(active) and tally.passes < last:
        shown = images if stay or len(active) == len(images) else images[active]
        left = active if len(shown) == len(images) else torch.arange(len(active)).to(active)
        planned = stop.planned(tally.passes, _passes_at_once(source, len(shown)))
        for block in source.blocks(shown, tally.passes, planned):
            for part in _split(block, tally.passes, seen):
                tally.add(active, part[:, left])
                stop.observe(active, part[:, left])
                advance(len(part))
                if tally.passes in looks:
                    decided = stop.decided(tally, active)
                    tally.decided[active] = decided
                    active, left = active[~decided], left[~decided]
                if tally.passes in snapshots:
                    yield tally
                if len(active) == 0:
                    break
            if len(active) < len(shown) and not (stay and len(active)):
                break
    if tally.passes not in snapshots:
        yield tally


def _passes_at_once(source: PassSource, images: int) -> int:
    """Return how many passes over ``images`` take hardly longer than one."""
    counted: Callable[[int], int] = getattr(source, "passes_at_once", lambda images: 1)
    return counted(images)


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
    deadline: float | None = None,
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
        deadline: of `time.monotonic`, when every vote ends, decided or not.
        advance: called with the number of passes just counted.

    Raises:
        InputError: the stopping rule is unknown or does not suit a voting rule, or a number is out
            of range.
    """
    if classes < 2:
        raise InputError(f"a vote needs at least 2 classes, the model has {classes}")
    counts = sorted({plain_int("samples", most, 1, MOST_PASSES) for most in samples})
    delta = plain_float("delta", delta, above=0, below=1)
    if stop == "fixed" and deadline is None:
        chosen = list(rules.values())
        run = count_votes(source, images, chosen, Fixed(counts[-1]), counts, advance)
        every = torch.ones(len(images), dtype=torch.bool, device=images.device)
        return {
            (name, tally.passes): replace(tally.prediction(rule), decided=every)
            for tally in run
            for name, rule in rules.items()
        }
    found = {}
    for name, rule in rules.items():
        for most in counts:
            criterion = stopping(stop, VoteSpec(rule, most, delta, classes), len(images))
            if deadline is not None:
                at_once = _passes_at_once(source, len(images))
                criterion = WithinBudget(criterion, most, deadline, len(images), at_once)
            *_, tally = count_votes(source, images, [rule], criterion, advance=advance)
            answer = tally.prediction(rule)
            if isinstance(criterion, WithinBudget):
                answer = replace(answer, decided=answer.decided & ~criterion.late.to(images.device))
            found[name, most] = answer
    return found
