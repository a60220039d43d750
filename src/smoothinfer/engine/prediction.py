"""The verdicts on images, and how sure they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smoothinfer.errors import plain_float
from smoothinfer.types import Counts, Labels, Scores

_SHOWN = 10  # images in the text of a prediction


@dataclass(frozen=True, repr=False)
class Prediction:
    """The verdicts on N images.

    Attributes:
        labels: (N,) the decision of the rule: the largest sum of votes before any rounding, the
            lowest class in a tie. Where rounding makes two scores equal or swaps them, it stands.
        counts: (N, K) number of passes that put each class first.
        samples: (N,) passes used.
        scores: (N, K) of the rule, log scale.
        decided: (N,) whether the stopping rule was satisfied; with ``"fixed"`` always.
        abstained: (N,) whether the share of the answer is too small for the risk asked for; without
            one no image abstains.
    """

    labels: Labels
    counts: Counts
    samples: Tensor
    scores: Scores
    decided: Tensor
    abstained: Tensor

    @property
    def share(self) -> Tensor:
        """(N,) share of the passes that put the answer first."""
        return self._of_answer().double() / self.samples

    @property
    def runner_up(self) -> Labels:
        """(N,) the class that most of the other passes put first, the lowest in a tie."""
        return self.counts.scatter(1, self.labels[:, None], -1).argmax(1)

    def share_interval(self, confidence: float = 0.95) -> Tensor:
        """Return (N, 2), Clopper-Pearson bounds of the share that infinitely many passes have.

        They hold for a number of passes that was fixed beforehand; after an early stop they are
        somewhat too narrow.

        Raises:
            InputError: ``confidence`` is not between 0 and 1.
        """
        from scipy.special import betaincinv

        tail = (1 - plain_float("confidence", confidence, above=0, below=1)) / 2
        hits, passes = self._of_answer().double().cpu(), self.samples.double().cpu()
        low = betaincinv(hits.clamp_min(1), passes - hits.clamp_min(1) + 1, tail)
        high = betaincinv(hits + 1, (passes - hits).clamp_min(1), 1 - tail)
        bounds = torch.stack(
            [
                torch.where(hits > 0, torch.as_tensor(low), 0.0),
                torch.where(hits < passes, torch.as_tensor(high), 1.0),
            ],
            1,
        )
        return bounds.to(self.labels.device)

    def __repr__(self) -> str:
        heads = ("label", "share", "runner-up", "passes", "decided", "abstained")
        lines = [[f"{cell:>9}" for cell in line] for line in (heads, *self._lines(_SHOWN))]
        more = [f"... and {len(self.labels) - _SHOWN:,} more"] if len(self.labels) > _SHOWN else []
        shown = [" ".join(line) for line in lines]
        return "\n".join([f"Prediction of {len(self.labels):,} images", *shown, *more])

    def _lines(self, most: int) -> list[list[str]]:
        columns = (self.labels, self.share, self.runner_up, self.samples, self.decided)
        rows = zip(*(each[:most].tolist() for each in (*columns, self.abstained)), strict=True)
        return [
            [f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in r] for r in rows
        ]

    def _of_answer(self) -> Tensor:
        return self.counts.gather(1, self.labels[:, None]).squeeze(1)

    def split(self, sizes: Sequence[int]) -> list[Prediction]:
        """Return the verdicts on the first ``sizes[0]`` images, the next ``sizes[1]``, ..."""
        parts = (field.split(list(sizes)) for field in vars(self).values())
        return [Prediction(*each) for each in zip(*parts, strict=True)]
