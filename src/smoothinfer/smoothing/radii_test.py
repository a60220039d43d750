"""The sequential certificate: passes of an image end when all radii asked for are decided."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smoothinfer.engine.stopping import Stopping, Votes, growing
from smoothinfer.errors import InputError
from smoothinfer.smoothing.sequences import (
    SEQUENCES,
    Numbers,
    clopper_pearson,
    lower_share,
    upper_share,
)
from smoothinfer.smoothing.spending import least_hits, parts_of_alpha
from smoothinfer.types import Labels

_GROWTH = 1.25  # factor between looks
_FIRST = 20  # passes
_GIVE_UP = 1e-3  # of the bounds by which a radius is given up, at each look
KINDS = ("spending", *SEQUENCES)


class RadiiTest(Stopping):
    """Decides for each image which of ``radii`` its class keeps.

    With pA at least a and every other class at most b, the class keeps
    R = sigma / 2 (Phi^-1(a) - Phi^-1(b)); b is at most 1 - a. Bounds hold at all looks at once: a
    at alpha / 2, b at alpha / (2 (K - 1)), the union over the other classes. Kind ``"spending"``
    has half of alpha for them, and half for exact tests of pA > Phi(r / sigma) at each radius r;
    the smallest r for which that is false decides whether any of these tests errs. An image is
    done when the largest radius is proved, or when the next one is out of reach by
    Clopper-Pearson bounds at 0.001; to give up costs no soundness.

    Args:
        chosen: (N,) the class of each image, chosen by other passes.
        radii: ascending, in pixel units; 0 asks whether the class leads at all.
        margin: added to each of them, for what the arithmetic of the noise takes away.
        sigma: of the noise, in pixels.
        samples: the most passes.
        alpha: chance of a wrong certificate of an image, at any of the radii.
        kind: in ``KINDS``: by alpha spending, or by a confidence sequence.
        classes: K.
        error: by which a share of passes may be off, see `GridGaussian`.
        skip: leave out radii that not even a unanimous vote proves.

    Raises:
        InputError: not even a unanimous vote proves one of the radii.

    Source: Cohen et al. 2019, theorem 1; Voracek 2024, arXiv 2406.17830, bounds pA and pB too;
    for spending see `least_hits`.
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
        self.radii = np.array(radii) + margin
        self.places = np.arange(len(radii))  # of the radii among those given
        self.kind, self.others, self.error = kind, classes - 1, error
        self.looks = {passes: number for number, passes in enumerate(self.checkpoints(), 1)}
        self.alpha = alpha / 2 if kind == "spending" else alpha  # of the bounds
        self.least = self._least_hits(alpha / 2)
        self.lower = np.zeros(len(chosen))  # of pA
        self.closed = torch.zeros(len(chosen), dtype=torch.bool)  # whether all is decided
        possible = np.zeros(len(radii), dtype=bool)
        for passes in self.looks:
            possible |= self._proves(np.array([float(passes)]), np.zeros(1), passes)[1][0]
        if skip and possible.any():
            self.radii, self.places = self.radii[possible], self.places[possible]
            self.least = self.least[:, possible]
        elif not possible.all():
            raise InputError(
                f"no vote of {samples} passes proves radius {np.array(radii)[~possible][0]:g} with "
                f"sigma {sigma:g} and alpha {alpha:g}: not even a unanimous one"
            )
        self.proved = np.zeros((len(chosen), len(self.radii)), dtype=bool)

    def checkpoints(self) -> list[int]:
        return growing(_FIRST, self.samples, _GROWTH)

    def _least_hits(self, alpha: float) -> NDArray[np.float64]:
        """Return the hits that prove each radius at each look, (looks, radii)."""
        if self.kind != "spending":
            return np.full((len(self.looks), len(self.radii)), np.inf)
        from scipy.special import ndtr

        shares = ndtr(self.radii / self.sigma) + self.error
        columns = [least_hits(min(share, 1.0), list(self.looks), alpha) for share in shares]
        # What proves a radius proves all smaller ones.
        return np.maximum.accumulate(np.stack(columns, 1), 1).astype(float)

    def decided(self, tally: Votes, rows: Tensor) -> Tensor:
        counts, chosen = tally.counts[rows].cpu(), self.chosen[rows].cpu()
        hits = counts.gather(1, chosen[:, None]).squeeze(1).double().numpy()
        rivals = counts.scatter(1, chosen[:, None], -1).amax(1).double().numpy()
        at = rows.cpu().numpy()
        lower, proves = self._proves(hits, rivals, tally.passes)
        self.lower[at] = np.maximum(self.lower[at], lower)
        # Claims hold at all times at once, so the best of all looks counts.
        self.proved[at] |= proves
        left = ~self.proved[at]
        following = np.where(left.any(1), self.radii[left.argmax(1)], np.inf)
        done = torch.from_numpy(self._best(hits, rivals, tally.passes) < following)
        done |= torch.from_numpy(~left.any(1))
        self.closed[rows.cpu()] = done
        return done.to(rows.device)

    def _proves(
        self, hits: Numbers, rivals: Numbers, passes: int
    ) -> tuple[Numbers, NDArray[np.bool_]]:
        """Return a, a lower bound of pA, and which radii these votes prove, (N, radii)."""
        look = self.looks[passes]
        lower, upper = self._bounds(hits, rivals, passes, look)
        kept = self._radius(lower, upper)[:, None]
        proves = (kept >= self.radii) & (kept > 0)
        proves |= hits[:, None] >= self.least[look - 1]
        return lower, np.logical_or.accumulate(proves[:, ::-1], 1)[:, ::-1]

    def _bounds(
        self, hits: Numbers, rivals: Numbers, passes: int, look: int
    ) -> tuple[Numbers, Numbers]:
        """Return a, a lower bound of pA, and b, an upper bound of every other class."""
        own, other = self.alpha / 2, self.alpha / (2 * self.others)
        if self.kind == "spending":
            part = parts_of_alpha(len(self.looks))[look - 1]
            lower = clopper_pearson(hits, passes, own * part)
            upper = 1 - clopper_pearson(passes - rivals, passes, other * part)
        else:
            lower = lower_share(self.kind, hits, passes, look, own)
            upper = upper_share(self.kind, rivals, passes, look, other)
        lower, upper = lower - self.error, upper + self.error
        return lower, np.minimum(1 - lower, upper)

    def _best(self, hits: Numbers, rivals: Numbers, passes: int) -> Numbers:
        """Return the largest radius that these votes leave likely."""
        upper = 1 - clopper_pearson(passes - hits, passes, _GIVE_UP)
        lower = clopper_pearson(rivals, passes, _GIVE_UP)
        return self._radius(upper, lower)

    def _radius(self, first: Numbers, second: Numbers) -> Numbers:
        from scipy.special import ndtri

        with np.errstate(invalid="ignore"):
            low, high = (ndtri(np.clip(each, 0, 1)) for each in (first, second))
            return np.asarray(self.sigma / 2 * (low - high))

    @property
    def certified(self) -> Tensor:
        """The place, among the radii given, of the largest that each image's class keeps.

        -1 where the class may not even lead.
        """
        last = self.proved.shape[1] - 1 - self.proved[:, ::-1].argmax(1)
        return torch.from_numpy(np.where(self.proved.any(1), self.places[last], -1))
