"""Abstention at a risk: the share of passes below which an answer is not given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from smoothinfer.data import Data, images_and_labels
from smoothinfer.engine.prediction import Prediction
from smoothinfer.errors import InputError, plain_float
from smoothinfer.types import Images

_BATCH = 256
_STEPS = 200  # thresholds that are tried, at most
_START = 4  # times the images that show a risk if all are right: some errors must be allowed


class Voting(Protocol):
    """A classifier that votes."""

    def predict(self, images: Images, **how: Any) -> Prediction: ...


@dataclass(frozen=True)
class Abstention:
    """Which share of the passes makes an answer safe, learned on images with labels.

    Attributes:
        shares: (N,) share of the passes for each image's answer, in [0, 1].
        right: (N,) whether the answer was right.
        confidence: with which the risk holds.
    """

    shares: NDArray[np.float64]
    right: NDArray[np.bool_]
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.right) or len(self.shares) == 0:
            raise InputError("abstention is learned from as many shares as answers, at least one")
        plain_float("confidence", self.confidence, above=0, below=1)

    def threshold(self, risk: float) -> float:
        """Return the least share with which at most ``risk`` of the given answers are wrong.

        Thresholds are tried from above, from the first with four times the images that would show
        the risk if all were right; the last counts whose Clopper-Pearson bound, and those of all
        before it, are at most the risk. So the risk of the answers given holds, with
        the confidence, for images of the same distribution (fixed-sequence testing).

        Raises:
            InputError: the risk is out of range, or these images cannot show that it holds at any
                threshold.

        Source: Geifman, El-Yaniv, *Selective Classification for Deep Neural Networks*, NeurIPS
        2017; Angelopoulos et al., *Learn then Test*, 2021, arXiv 2110.01052.

        >>> shares = np.linspace(0.3, 1.0, 1000)
        >>> Abstention(shares, shares > 0.5).threshold(0.05) < 0.55
        True
        """
        from scipy.special import betaincinv

        wanted = plain_float("risk", risk, above=0, below=1)
        steps = np.quantile(self.shares, np.linspace(0, 1, _STEPS), method="higher")
        enough = _START * _needed(wanted, self.confidence)
        tried = [
            share for share in np.unique(steps)[::-1] if (self.shares >= share).sum() >= enough
        ]
        safe = None
        for share in tried:
            given = self.shares >= share
            wrong = int((given & ~self.right).sum())
            bound = 1.0
            if wrong < given.sum():
                bound = float(betaincinv(wrong + 1, given.sum() - wrong, self.confidence))
            if bound > wanted:
                break
            safe = float(share)
        if safe is None:
            raise InputError(
                f"{len(self.shares)} images do not show a risk of {risk:g} for the surest answers: "
                f"allow more, or calibrate on more images"
            )
        return safe

    def curve(self, points: Sequence[float] = tuple(np.linspace(0, 1, 21))) -> list[dict[str, Any]]:
        """Return accuracy against coverage: of the surest images, the share that is right."""
        order = np.argsort(-self.shares, kind="stable")
        found = []
        for coverage in points:
            count = round(coverage * len(order))
            if count:
                kept = order[:count]
                found.append(
                    {
                        "coverage": count / len(order),
                        "accuracy": float(self.right[kept].mean()),
                        "share": float(self.shares[kept[-1]]),
                    }
                )
        return found


@dataclass(frozen=True)
class KnownShares:
    """Least shares of safe answers that were learned before, by risk.

    Attributes:
        shares: by risk; ``None`` for a risk that could not be shown.
    """

    shares: Mapping[float, float | None]

    @classmethod
    def read(cls, content: Mapping[str, Any], source: str) -> Self:
        """Read what ``smoothinfer calibrate`` wrote.

        Raises:
            InputError: a risk or a share is no number in [0, 1].
        """
        shares: dict[float, float | None] = {}
        for risk, share in content.items():
            name = f"{source}, least share"
            try:
                key = float(risk)
            except ValueError:
                raise InputError(f"{name}: the risk {risk!r:.40} is no number") from None
            key = plain_float(f"{name}, risk", key, at_least=0, at_most=1)
            shares[key] = None if share is None else plain_float(name, share, at_least=0, at_most=1)
        return cls(shares)

    def threshold(self, risk: float) -> float:
        """Return the least share of a safe answer.

        Raises:
            InputError: it was not learned for this risk, or could not be shown.
        """
        share = self.shares.get(plain_float("risk", risk, above=0, below=1))
        if share is None:
            known = [f"{each:g}" for each, least in self.shares.items() if least is not None]
            raise InputError(
                f"no share is known for a risk of {risk:g}, only for {', '.join(known) or 'none'}"
            )
        return share


def learn_abstention(classifier: Voting, data: Data, **how: Any) -> Abstention:
    """Return the abstention of ``classifier``, from its votes on images that it never saw.

    Args:
        classifier: a `SmoothedClassifier`.
        data: images and labels, apart from those of training and of the test.
        how: of `SmoothedClassifier.predict`; later votes should be cast alike.

    Raises:
        InputError: the data are malformed.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> from smoothinfer.smoothing.classifier import SmoothedClassifier
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> smooth = SmoothedClassifier(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=8)
    >>> data = torch.rand(5, 1, 2, 2), torch.zeros(5).long()
    >>> smooth.abstention = learn_abstention(smooth, data)
    """
    images, labels = images_and_labels(data)
    answers = [classifier.predict(part, **how) for part in images.split(_BATCH)]
    shares = torch.cat([each.share for each in answers]).double().cpu().numpy()
    found = torch.cat([each.labels for each in answers]).cpu()
    return Abstention(shares, (found == labels.cpu()).numpy())


def _needed(risk: float, confidence: float) -> float:
    """Return how many answers, all right, show the risk."""
    return float(np.log(1 - confidence) / np.log(1 - risk))
