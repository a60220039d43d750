"""The history of a run: the table of epochs, the best scores, and whether training collapsed."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.runtime.files import write_text

ALARM = (
    "accuracy under attack has lost half of its best: the lr is too high, or the attack of the "
    "training has too few steps (catastrophic overfitting): try a smaller lr, or more steps"
)


@dataclass
class History:
    """The state of a run besides its weights.

    Attributes:
        step: number of the next one.
        seconds: wall-clock so far; ``step_seconds``: of that, within steps.
        best_score, worst_score: the extreme validation scores.
        best_attacked: the highest accuracy under attack.
        loss_sum: over the steps of the current epoch.
        epochs: one row for each epoch.
    """

    step: int = 0
    seconds: float = 0.0
    step_seconds: float = 0.0
    best_score: float = -math.inf
    worst_score: float = math.inf
    best_attacked: float = -math.inf
    loss_sum: float = 0.0
    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def warned(self) -> bool:
        """Whether an epoch before the last one had collapsed, too."""
        return any(row.get("collapsed") for row in self.epochs[:-1])

    def finish_epoch(self, row: dict[str, float], score: str, chance: float) -> set[str]:
        """Add ``row``; return the checkpoints to write for it, of ``best`` and ``worst``.

        The row says ``collapsed`` if accuracy under attack fell below half of a best that was well
        above ``chance``, whatever the score: clean accuracy rises when that happens.

        >>> history = History()
        >>> history.finish_epoch({"attacked": 0.4}, "attacked", 0.1) == {"best", "worst"}
        True
        >>> _ = history.finish_epoch({"attacked": 0.1}, "attacked", 0.1)
        >>> history.collapsed
        True
        """
        value = score_of(row, score)
        attacked = row.get("attacked", 0.0 if score == "last" else value)
        halved = attacked < 0.5 * self.best_attacked
        row["collapsed"] = float(halved and self.best_attacked > 1.5 * chance)
        self.best_attacked = max(self.best_attacked, attacked)
        checkpoints = {"best"} if value > self.best_score else set()
        if value < self.worst_score:
            checkpoints.add("worst")
        self.best_score = max(self.best_score, value)
        self.worst_score = min(self.worst_score, value)
        self.epochs.append(row)
        self.loss_sum = 0.0
        return checkpoints

    @property
    def collapsed(self) -> bool:
        """Whether the last epoch lost half of the best: single-step training may do that."""
        return bool(self.epochs and self.epochs[-1].get("collapsed"))

    def exhausted(self, score: str, patience: int) -> bool:
        """Say whether the score has not risen for ``patience`` epochs (0: never)."""
        scores = [score_of(row, score) for row in self.epochs]
        return bool(patience and scores) and len(scores) - 1 - scores.index(max(scores)) >= patience

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    def write_table(self, path: Path) -> None:
        """Write the table of epochs as CSV."""
        names = list(dict.fromkeys(name for row in self.epochs for name in row))
        lines = [names, *([f"{row.get(name, '')}" for name in names] for row in self.epochs)]
        write_text(path, "".join(",".join(line) + "\n" for line in lines))


def score_of(row: dict[str, float], score: str) -> float:
    """Return what an epoch is judged by: by ``"last"``, its number.

    >>> score_of({"epoch": 3.0, "clean": 0.5}, "last")
    3.0
    """
    return row["epoch" if score == "last" else score]
