"""The sequential certificate: passes of an image end when all radii asked for are decided."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothinfer.engine.stopping import Stopping, Votes, growing
from smoothinfer.errors import InputError
from smoothinfer.smoothing.sequences import Numbers, lower_share, upper_share
from smoothinfer.types import Labels

_GROWTH = 1.25  # factor between looks
_FIRST = 20  # passes
_GIVE_UP = 1e-3  # chance to give up a radius that holds; it costs no soundness


class RadiiTest(Stopping):
    """Decides for each image which of ``radii`` its class keeps.

    With pA at least a and every other class at most b, the class keeps
    R = sigma / 2 (Phi^-1(a) - Phi^-1(b)). Both bounds are confidence sequences: a at alpha / 2, b
    at alpha / (2 (K - 1)), the union over the other classes; b is at most 1 - a. An image is done
    when R has reached the largest radius, or when the same bounds from the other side, at 0.001,
    say that the next radius cannot be reached.

    Args:
        chosen: (N,) the class of each image, chosen by other passes.
        radii: ascending, in pixel units; 0 asks whether the class leads at all.
        margin: added to each of them, for what the arithmetic of the noise takes away.
        sigma: of the noise, in pixels.
        samples: the most passes.
        alpha: chance of a wrong certificate of an image, at any of the radii.
        kind: of the confidence sequence.
        classes: K.
        error: by which a share of passes may be off, see `GridGaussian`.
        skip: leave out radii that not even a unanimous vote proves.

    Raises:
        InputError: not even a unanimous vote proves one of the radii.

    Source: Cohen et al. 2019, theorem 1; Voracek 2024, arXiv 2406.17830, bounds pA and pB too.
    """

    def __init__(
        self,
        chosen: Labels,
        radii: Sequence[float],
        margin: float,
        sigma: float,
        samples: int,
        alpha: float,
        kind: str,
        classes: int,
        error: float = 0.0,
        skip: bool = False,
    ) -> None:
        self.chosen, self.sigma, self.samples = chosen, sigma, samples
        self.radii, self.alpha = np.array(radii) + margin, alpha
        self.places = np.arange(len(radii))  # of the radii among those given
        self.kind, self.others, self.error = kind, classes - 1, error
        self.looks = {passes: number for number, passes in enumerate(self.checkpoints(), 1)}
        self.lower = np.zeros(len(chosen))  # of pA
        self.closed = torch.zeros(len(chosen), dtype=torch.bool)  # whether all is decided
        self.kept = np.full(len(chosen), -np.inf)  # the radius proved so far
        possible = np.zeros(len(radii), dtype=bool)
        for passes, look in self.looks.items():
            votes = np.array([float(passes)]), np.zeros(1), passes, look
            possible |= self._reaches(self._radius(*self._bounds(*votes)), self.radii)
        if skip and possible.any():
            self.radii, self.places = self.radii[possible], self.places[possible]
        elif not possible.all():
            raise InputError(
                f"no vote of {samples} passes proves radius {np.array(radii)[~possible][0]:g} with "
                f"sigma {sigma:g} and alpha {alpha:g}: not even a unanimous one"
            )

    def checkpoints(self) -> list[int]:
        return growing(_FIRST, self.samples, _GROWTH)

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        counts, chosen = tally.counts[rows].cpu(), self.chosen[rows].cpu()
        hits = counts.gather(1, chosen[:, None]).squeeze(1).double().numpy()
        rivals = counts.scatter(1, chosen[:, None], -1).amax(1).double().numpy()
        votes, at = (hits, rivals, tally.passes, self.looks[tally.passes]), rows.cpu().numpy()
        lower, upper = self._bounds(*votes)
        self.lower[at] = np.maximum(self.lower[at], lower)
        # Bounds hold at all times at once, so the best radius of all looks counts.
        self.kept[at] = np.maximum(self.kept[at], self._radius(lower, upper))
        open_radii = ~self._reaches(self.kept[at][:, None], self.radii[None])
        following = np.where(open_radii.any(1), self.radii[open_radii.argmax(1)], np.inf)
        done = torch.from_numpy(~open_radii.any(1) | (self._best(*votes) < following))
        self.closed[rows.cpu()] = done
        return done.to(rows.device)

    def _bounds(
        self, hits: Numbers, rivals: Numbers, passes: int, look: int
    ) -> tuple[Numbers, Numbers]:
        """Return a, a lower bound of pA, and b, an upper bound of every other class."""
        lower = lower_share(self.kind, hits, passes, look, self.alpha / 2) - self.error
        part = self.alpha / (2 * self.others)
        upper = upper_share(self.kind, rivals, passes, look, part) + self.error
        return lower, np.minimum(1 - lower, upper)

    def _best(self, hits: Numbers, rivals: Numbers, passes: int, look: int) -> Numbers:
        """Return the largest radius that these votes leave possible."""
        upper = upper_share(self.kind, hits, passes, look, _GIVE_UP / 2)
        lower = lower_share(self.kind, rivals, passes, look, _GIVE_UP / 2)
        return self._radius(upper, lower)

    def _radius(self, first: Numbers, second: Numbers) -> Numbers:
        from scipy.special import ndtri

        with np.errstate(invalid="ignore"):
            low, high = (ndtri(np.clip(each, 0, 1)) for each in (first, second))
            return np.asarray(self.sigma / 2 * (low - high))

    @staticmethod
    def _reaches(proved: Numbers, radius: Numbers | float) -> NDArray[np.bool_]:
        return (proved >= radius) & (proved > 0)

    @property
    def certified(self) -> Tensor:
        """The place, among the radii given, of the largest that each image's class keeps.

        -1 where the class may not even lead.
        """
        reached = self._reaches(self.kept[:, None], self.radii[None])
        last = len(self.radii) - 1 - reached[:, ::-1].argmax(1)
        return torch.from_numpy(np.where(reached.any(1), self.places[last], -1))
