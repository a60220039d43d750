"""Which images an attack has broken: those that a fresh vote gets wrong, not one lucky draw."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smoothinfer.attacks.eot import EOTLoss, fresh_seeds
from smoothinfer.attacks.losses import margin
from smoothinfer.engine.members import run_draws
from smoothinfer.numerics.balls import pick_images
from smoothinfer.types import Images, Labels

_COMPARING = 32  # draws, shared by the points that are compared
_ERRORS = 2.0  # standard errors by which the label must be behind


class Judge:
    """Judges points of one batch by fresh votes of ``model``, and keeps the best of each image.

    Of two points that the vote gets right the better one fools more of 32 shared draws, or, among
    equals, has the larger mean margin.

    Args:
        model: any module from images to logits.
        images: (N, C, H, W), the points at first.
        labels: (N,).
        votes: the most draws of a vote; clear votes end early.
        random: whether two draws differ; if not, one of them is the vote.
    """

    def __init__(
        self, model: nn.Module, images: Images, labels: Labels, votes: int, random: bool
    ) -> None:
        self.model, self.labels = model, labels
        self.votes, self.random = votes, random
        self.points = images.clone()
        self.broken = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.refresh(torch.arange(len(images), device=images.device))

    @property
    def standing(self) -> Tensor:
        """Indices of the images that are not broken."""
        return (~self.broken).nonzero().flatten()

    def offer(self, found: Images, rows: Tensor) -> None:
        """Keep ``found``, points of the images ``rows``, where they are better; judge them."""
        seeds = fresh_seeds(_COMPARING if self.random else 1)
        kept, labels = self.points[rows], self.labels[rows]
        new, old = (self._danger(points, labels, seeds) for points in (found, kept))
        better = new > old
        self.points[rows] = pick_images(better, found, kept)
        self.refresh(rows[better])

    def state(self, stages: int) -> dict[str, Tensor]:
        """Return what `take_up` needs, after so many stages."""
        return {"points": self.points, "broken": self.broken, "stages": torch.tensor(stages)}

    def take_up(self, state: dict[str, Tensor] | None) -> int:
        """Restore a state; return how many stages it is from."""
        if state is None or state["points"].shape != self.points.shape:
            return 0
        self.points = state["points"].to(self.points)
        self.broken = state["broken"].to(self.broken)
        return int(state["stages"])

    def refresh(self, rows: Tensor) -> None:
        """Put the points of the images ``rows`` to the vote."""
        if len(rows) == 0:
            return
        points, labels = self.points[rows], self.labels[rows]
        if not self.random:
            self.broken[rows] = self._danger(points, labels, [0]) >= 1  # the one draw is wrong
            return
        eot = EOTLoss(self.model, margin)
        self.broken[rows] = eot.is_outvoted(points, labels, fresh_seeds(self.votes), _ERRORS)

    def _danger(self, points: Images, labels: Labels, seeds: list[int]) -> Tensor:
        """Return wrong draws plus the mean margin squeezed into (0, 1), (N,)."""
        with torch.no_grad():
            logits = torch.stack(run_draws(self.model, points, seeds))
        wrong = (logits.argmax(2) != labels).double().sum(0)
        leads = torch.stack([margin(each, labels) for each in logits]).double().mean(0)
        return wrong + torch.atan(leads) / torch.pi + 0.5
