"""What a run remembers of its course: the table of epochs, the best score, whether it collapsed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.runtime.files import write_whole

ALARM = (
    "accuracy under attack has lost half of its best: this looks like catastrophic overfitting, to "
    "which single-step attacks in training are prone; use more steps, or a smaller step_size or lr"
)


@dataclass
class Course:
    """What a run remembers: the next step, the table of epochs, the extreme validation scores.

    Attributes:
        step: number of the next one.
        seconds: wall-clock so far; ``inside``: of that, within steps.
        best, worst: the extreme validation scores.
        most: the highest accuracy under attack.
        loss_sum: over the steps of the epoch that runs.
        epochs: one row for each epoch.
    """

    step: int = 0
    seconds: float = 0.0
    inside: float = 0.0
    best: float = -math.inf
    worst: float = math.inf
    most: float = -math.inf
    loss_sum: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)

    def finish_epoch(self, row: dict[str, float], score: str, chance: float) -> set[str]:
        """Add ``row``; return which checkpoints it deserves, of ``best`` and ``worst``.

        The row says ``collapsed`` if accuracy under attack fell below half of a best that was well
        above ``chance``, whatever the score: clean accuracy rises when that happens.

        >>> course = Course()
        >>> course.finish_epoch({"attacked": 0.4}, "attacked", 0.1) == {"best", "worst"}
        True
        >>> _ = course.finish_epoch({"attacked": 0.1}, "attacked", 0.1)
        >>> course.collapsed
        True
        """
        value, attacked = row[score], row.get("attacked", row[score])
        row["collapsed"] = float(attacked < 0.5 * self.most and self.most > 1.5 * chance)
        self.most = max(self.most, attacked)
        found = {"best"} if value > self.best else set()
        if value < self.worst:
            found.add("worst")
        self.best, self.worst = max(self.best, value), min(self.worst, value)
        self.epochs.append(row)
        self.loss_sum = 0.0
        return found

    @property
    def collapsed(self) -> bool:
        """Whether the last epoch lost half of the most: single-step training may do that."""
        return bool(self.epochs and self.epochs[-1].get("collapsed"))

    def exhausted(self, score: str, patience: int) -> bool:
        """Say whether the score has not risen for ``patience`` epochs (0: for ever)."""
        scores = [row[score] for row in self.epochs]
        return bool(patience and scores) and len(scores) - 1 - scores.index(max(scores)) >= patience

    def written(self) -> dict[str, Any]:
        """Return plain values, to make it again from."""
        return asdict(self)

    def write_table(self, path: Path) -> None:
        """Write the table of epochs as CSV."""
        names = list(dict.fromkeys(name for row in self.epochs for name in row))
        lines = [names, *([f"{row.get(name, '')}" for name in names] for row in self.epochs)]
        content = "".join(",".join(line) + "\n" for line in lines)
        write_whole(path, lambda file: file.write(content.encode()))
