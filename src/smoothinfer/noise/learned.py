"""Noise whose strength is learned with the network: PNI (white) and CNI (coloured)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError, choose, plain_float, plain_int
from smoothinfer.noise.base import Noise, Place
from smoothinfer.numerics.randomness import normal
from smoothinfer.numerics.sync_batchnorm import global_std

_GRANULARITY: dict[str, Callable[[torch.Size], tuple[int, ...]]] = {
    "layer": lambda shape: (1,),
    "channel": lambda shape: (shape[0], *[1] * (len(shape) - 1)),
    "element": tuple,
}


class _Scaled(Noise):
    """Noise whose strength is a multiple of the standard deviation of the tensor it disturbs."""

    @property
    def by_batch(self) -> bool:
        """Whether in training mode the strength depends on the whole batch."""
        return self.place != "weights"

    def spread(self, clean: Tensor) -> Tensor:
        """Return std over the whole tensor; in eval mode at activations over each image alone."""
        if not self.by_batch:
            return clean.std()
        if self.training:
            return global_std(clean)
        each = clean.flatten(1).std(1)
        return each.view(-1, *[1] * (clean.ndim - 1))


class PNI(_Scaled):
    """Parametric noise injection: v + alpha * eta with eta ~ N(0, std(v)^2), alpha learned.

    std is over the whole tensor and carries no gradient. At activations and inputs it is that
    of the whole batch in training mode; in eval mode it is each image's own, so that a verdict
    never depends on the other images of its batch (there the authors use the batch's).

    Args:
        granularity: one alpha per ``"layer"``, per output ``"channel"``, or per ``"element"``.
        alpha: its initial value.

    Raises:
        InputError: ``granularity`` is unknown.

    Source: He, Rakin, Fan, *Parametric Noise Injection*, CVPR 2019, arXiv 1811.09310.

    >>> noise = PNI("channel").fit(torch.Size((16, 3, 3, 3)), "weights")
    >>> tuple(noise.alpha.shape)
    (16, 1, 1, 1)
    """

    alpha: Tensor

    def __init__(self, granularity: str = "layer", alpha: float = 0.25) -> None:
        super().__init__()
        choose("granularity", _GRANULARITY, granularity)
        self.granularity, self.initial = granularity, plain_float("alpha", alpha, at_least=0)

    def fit(self, shape: torch.Size, place: Place, layer: nn.Module | None = None) -> Noise:
        twin = self._copy(place)
        entries = shape if place == "weights" else shape[1:]
        sized = _GRANULARITY[self.granularity](entries)
        twin.alpha = nn.Parameter(torch.full(sized, self.initial))
        return twin

    def affine(self, clean: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.alpha * self.spread(clean.detach()), None

    def strength(self, clean: Tensor) -> float:
        """Return the mean noise standard deviation in multiples of std(clean)."""
        del clean
        return float(self.alpha.detach().abs().mean())

    def extra_repr(self) -> str:
        return f"granularity={self.granularity}, alpha={self.initial:g}"


class CNI(_Scaled):
    """Coloured noise injection: v + sqrt(|s d|) * e1 + V e2, everything but s learned.

    The covariance is diag(|s d|) + V V^T with s = std(v), through which gradients flow,
    d one value per entry (n of them), V an (n, rank) factor, e1 ~ N(0, I_n), e2 ~ N(0, I_rank).
    At activations one vector serves the whole batch, as in the authors' code; s is the batch's
    in training mode and each image's own in eval mode (see `PNI`).

    Args:
        rank: columns of V; 0 gives white noise of variance |s d|.
        diagonal: initial d.
        factor: initial entries of V.
        linear: the noise of linear layers: by default element-wise `PNI`, as in the authors'
            networks; ``None`` gives them CNI too.

    Raises:
        InputError: ``rank`` or ``diagonal`` is negative, or a number is not finite.

    Source: Nemcovsky et al. 2019, arXiv 1911.07198, section 3; Zheltonozhskii et al. 2020.

    >>> noise = CNI(rank=5).fit(torch.Size((16, 3, 3, 3)), "weights")
    >>> sum(p.numel() for p in noise.parameters()) == 6 * 16 * 3 * 3 * 3
    True
    """

    diagonal: Tensor
    factor: Tensor

    def __init__(
        self,
        rank: int = 5,
        diagonal: float = 0.25**2,
        factor: float = 0.01,
        linear: Noise | str | None = "pni",
    ) -> None:
        super().__init__()
        if isinstance(linear, str) and linear != "pni":
            raise InputError(f"linear must be a noise, 'pni' or None, not {linear!r}")
        self.rank = plain_int("rank", rank, at_least=0)
        self.initial = (
            plain_float("diagonal", diagonal, at_least=0),
            plain_float("factor", factor),
        )
        # Outside the module tree, so that the template is no submodule of the fitted noise.
        self.__dict__["linear"] = PNI("element") if linear == "pni" else linear

    def fit(self, shape: torch.Size, place: Place, layer: nn.Module | None = None) -> Noise:
        linear = self.__dict__["linear"]
        if linear is not None and isinstance(layer, nn.Linear):
            return linear.fit(shape, place, layer)
        twin = self._copy(place)
        entries = shape if place == "weights" else shape[1:]
        twin.diagonal = nn.Parameter(torch.full(entries, self.initial[0]))
        twin.factor = nn.Parameter(torch.full((entries.numel(), self.rank), self.initial[1]))
        return twin

    def forward(
        self, clean: Tensor, generator: torch.Generator | None = None, shared: bool = False
    ) -> Tensor:
        batched = self.place != "weights"
        scale, factor = self.affine(clean)
        noise = scale * self.draw_like(normal, clean, generator, shared=batched)
        if self.rank:
            e2 = torch.randn(self.rank, generator=generator, device=clean.device)
            noise = noise + (factor @ e2.to(factor.dtype)).view(self.diagonal.shape)
        return clean + noise

    def affine(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        # The 1e-8 keeps the root's gradient finite where d passes through zero.
        return (self.spread(clean) * self.diagonal).abs().add(1e-8).sqrt(), self.factor

    def strength(self, clean: Tensor) -> float:
        """Return the root-mean-square noise standard deviation in multiples of std(clean)."""
        spread = clean.detach().std()
        white = (spread * self.diagonal.detach()).abs().mean()
        coloured = self.factor.detach().square().sum(1).mean() if self.rank else 0.0
        return float((white + coloured).sqrt() / spread)

    def extra_repr(self) -> str:
        return f"rank={self.rank}, diagonal={self.initial[0]:g}, factor={self.initial[1]:g}"
