"""The vote of an evaluation: all rules and numbers of passes out of one run, of many batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.engine.passes import Engine
from smoothinfer.engine.voting import Rule, Tally
from smoothinfer.types import Counts, Images, Labels


@dataclass(frozen=True)
class Verdict:
    """What the first ``samples`` passes say of N images under ``rule``.

    Attributes:
        rule, samples: of the vote.
        labels: (N,) classes decided for.
        firsts: (N, K) passes that put each class first.
    """

    rule: str
    samples: int
    labels: Labels
    firsts: Counts

    def split(self, sizes: Sequence[int]) -> list[Verdict]:
        """Return the verdicts on the first ``sizes[0]`` images, the next ``sizes[1]``, ..."""
        parts = zip(self.labels.split(list(sizes)), self.firsts.split(list(sizes)), strict=True)
        return [Verdict(self.rule, self.samples, *part) for part in parts]


def vote(
    smooth: SmoothedClassifier,
    batches: Sequence[Images],
    rules: Mapping[str, Rule],
    samples: Sequence[int],
    seed: int,
    advance: Callable[[int], object] = lambda batches: None,
) -> list[list[Verdict]]:
    """Return the verdicts on each of several batches, those of the same pass run together.

    A pass costs a GPU hardly more for a thousand images than for a hundred. Where a pass depends on
    an image's place among others (left-on dropout), the batches run one after the other, so that
    nothing depends on their company.

    Args:
        smooth: its model, engine settings and, if it has one, seed.
        batches: (N, C, H, W) each.
        rules: by name.
        samples: numbers of passes, ascending.
        seed: key of the passes, unless ``smooth`` has its own.
        advance: told after every pass on how many batches it was.
    """
    engine = Engine(
        smooth.model,
        batches[0],
        seed if smooth.seed is None else smooth.seed,
        tile=smooth.tile,
        per_image=smooth.per_image,
        precision=smooth.precision,
    )
    if engine.by_place:
        return [_counted(engine, each, rules, samples, lambda: advance(1)) for each in batches]
    found = _counted(engine, torch.cat([*batches]), rules, samples, lambda: advance(len(batches)))
    parts = [verdict.split([len(batch) for batch in batches]) for verdict in found]
    return [list(each) for each in zip(*parts, strict=True)]


def _counted(
    engine: Engine,
    images: Images,
    rules: Mapping[str, Rule],
    samples: Sequence[int],
    advance: Callable[[], object],
) -> list[Verdict]:
    tallies = {name: Tally(rule) for name, rule in rules.items()}
    firsts, found = Tally("prediction"), []
    for s, logits in enumerate(engine.run(images, 0, samples[-1]), start=1):
        for tally in (firsts, *tallies.values()):
            tally.add(logits)
        for name, tally in tallies.items() if s in samples else ():
            found.append(Verdict(name, s, tally.scores().argmax(1), _whole(firsts.sums)))
        advance()
    return found


def _whole(sums: Tensor | float) -> Counts:
    return torch.as_tensor(sums).long()
