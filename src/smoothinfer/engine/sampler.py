"""All noisy weights of a pass from one stream of random numbers, normalisation folded in.

Learned weight noise is mean + scale * e1 + factor @ e2 with e1, e2 standard normal. Laid end to
end, the weights of all layers need one call for e1 and e2 and one multiply-add.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import torch
from torch import Tensor

from smoothinfer.engine.plan import Plan, Tensors
from smoothinfer.engine.tracing import twins_of
from smoothinfer.errors import InputError
from smoothinfer.numerics.recording import is_recording


class WeightNoise(Protocol):
    """What the sampler needs of a noise: its affine form if it has one, and a call."""

    def affine(self, clean: Tensor) -> tuple[Tensor, Tensor | None] | None: ...

    def __call__(self, clean: Tensor, generator: torch.Generator | None) -> Tensor: ...


class Sampler:
    """Draws the tensors of one pass.

    Args:
        tensors: all parameters and buffers of the module, by name.
        noises: the noise of each noisy weight.
        plan: how the module is run; its folded normalisations go into the weights.
        dtype: format of weights and biases of convolutions and linear layers.

    Raises:
        InputError: a convolution or a linear layer holds NaN or infinite numbers.

    >>> from smoothinfer.noise import PNI
    >>> clean = {"0.weight": torch.ones(1000)}
    >>> noises = {"0.weight": PNI().fit(torch.Size([1000]), "weights")}
    >>> drawn = Sampler(clean, noises).draw(torch.Generator().manual_seed(0))
    >>> drawn["0.weight"].shape
    torch.Size([1000])
    """

    def __init__(
        self,
        tensors: Tensors,
        noises: Mapping[str, WeightNoise],
        plan: Plan | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.plan, self.dtype = plan, dtype
        self.clean = {name: tensor.detach() for name, tensor in tensors.items()}
        with torch.no_grad():
            self.fixed = self._cast(plan.fold(self.clean) if plan else dict(self.clean))
            self._lay_out(noises)
            twins = twins_of(tensors)
            self.twins = {name: twins[name] for name in noises if name in twins}
        if not is_recording():
            self._check_finite()

    def _lay_out(self, noises: Mapping[str, WeightNoise]) -> None:
        self.places: dict[str, tuple[slice, torch.Size]] = {}
        self.factors: list[tuple[slice, Tensor]] = []
        self.slow: dict[str, tuple[WeightNoise, Tensor | None]] = {}
        means: list[Tensor] = []
        scales: list[Tensor] = []
        at = 0
        for name, noise in noises.items():
            weight, form, fold = self.clean[name], noise.affine(self.clean[name]), self._fold(name)
            if form is None:
                self.slow[name] = (noise, fold)
                continue
            part = slice(at, at + weight.numel())
            self.places[name], at = (part, weight.shape), part.stop
            scale, factor = (None if t is None else t.detach() for t in form)
            assert scale is not None
            if fold is not None:
                rows = fold.expand_as(weight).reshape(-1, 1)
                weight, scale = weight * fold, scale * fold
                factor = None if factor is None else factor * rows
            means.append(weight.reshape(-1))
            scales.append(scale.expand(weight.shape).reshape(-1))
            if factor is not None and factor.shape[1]:
                # Column by column in memory: a thin matrix times a vector is fast that way only.
                self.factors.append((part, factor.t().contiguous().t()))
        if means:
            self.mean, self.scale = torch.cat(means), torch.cat(scales)
            short = self.plan is not None and all(map(self.plan.takes_bf16, self.places))
            self.row_dtype = self.dtype if short else self.mean.dtype

    def _check_finite(self) -> None:
        """Refuse NaN: a rectifier fused into a convolution may turn it into 0."""
        weights = {
            name: tensor
            for name, tensor in self.fixed.items()
            if self.plan is not None and name.rpartition(".")[0] in self.plan.stackable
        }
        noise = {} if not self.places else {"noise": self.mean + self.scale}
        checks = {name: tensor.isfinite().all() for name, tensor in (weights | noise).items()}
        # One question for all tensors: each would wait for the GPU.
        if checks and not torch.stack(list(checks.values())).all():
            name = next(name for name, finite in checks.items() if not finite)
            raise InputError(f"{name!r} of the model holds NaN or infinite numbers")

    def _fold(self, name: str) -> Tensor | None:
        layer = name.removesuffix(".weight")
        if self.plan is None or layer not in self.plan.folded:
            return None
        scale = self.plan.affine(self.clean, layer)[0]
        return scale.view(-1, *[1] * (self.clean[name].ndim - 1))

    def _cast(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return tensors if self.plan is None else self.plan.cast(tensors, self.dtype)

    @property
    def names(self) -> list[str]:
        """All names of the noisy weights."""
        return [*self.places, *self.slow, *(n for names in self.twins.values() for n in names)]

    @property
    def size(self) -> int:
        """Numbers in all noisy weights of one pass."""
        quick = len(self.mean) if self.places else 0
        return quick + sum(self.clean[name].numel() for name in self.slow)

    def draw(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return every tensor of one pass: noisy weights, and the rest as it is."""
        weights = self.draw_weights(generator)
        return self.fixed | weights | self._other_names(weights)

    def draw_weights(self, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Return the noisy weights of one pass alone, a weight of two layers by one name."""
        return {name: weights[0] for name, weights in self._draw([generator]).items()}

    def draw_block(self, generators: Sequence[torch.Generator | None]) -> dict[str, Tensor]:
        """Return the noisy weights of several passes, (passes, *shape of the weight)."""
        weights = self._draw(generators)
        return weights | self._other_names(weights)

    def _other_names(self, weights: Tensors) -> dict[str, Tensor]:
        """Return the weights of several layers by their other names."""
        return {other: weights[name] for name, others in self.twins.items() for other in others}

    @torch.no_grad()
    def _draw(self, generators: Sequence[torch.Generator | None]) -> dict[str, Tensor]:
        drawn = {}
        if self.places:
            flat = self._rows(generators)
            drawn = {
                name: flat[:, part].view(len(flat), *shape)
                for name, (part, shape) in self.places.items()
            }
        for name, (noise, fold) in self.slow.items():
            noisy = torch.stack([noise(self.clean[name], generator) for generator in generators])
            drawn[name] = noisy if fold is None else noisy * fold
        return self._cast(drawn)

    def _rows(self, generators: Sequence[torch.Generator | None]) -> Tensor:
        """Return all weights of each pass as one row."""
        if len(generators) == 1:
            return self._row(generators[0])[None]
        rows = self.mean.new_empty(len(generators), len(self.mean), dtype=self.row_dtype)

        inferring = torch.is_inference_mode_enabled()  # a setting of this thread

        def fill(each: tuple[Tensor, torch.Generator | None]) -> None:
            with torch.inference_mode(inferring):
                each[0].copy_(self._row(each[1]))

        pairs = list(zip(rows, generators, strict=True))
        if rows.device.type != "cpu" or None in generators:
            for pair in pairs:
                fill(pair)
        else:  # a CPU draws on one thread, but passes have streams of their own
            with ThreadPoolExecutor(torch.get_num_threads()) as pool:
                list(pool.map(fill, pairs))
        return rows

    def _row(self, generator: torch.Generator | None) -> Tensor:
        like, at = self.mean, len(self.mean)
        count = at + sum(factor.shape[1] for _, factor in self.factors)
        normal = torch.randn(count, generator=generator, device=like.device, dtype=like.dtype)
        flat = torch.addcmul(like, self.scale, normal[:at])
        for part, factor in self.factors:
            flat[part].addmv_(factor, normal[at : at + factor.shape[1]])
            at += factor.shape[1]
        return flat


def noisy_weights(
    weights: Tensors, noises: Mapping[str, WeightNoise], generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Return the ``weights`` under their noise, as a `Sampler` draws them, with gradients.

    Both draw the same numbers from the same generator.
    """
    forms = {name: noise.affine(weights[name]) for name, noise in noises.items()}
    affine = {name: form for name, form in forms.items() if form is not None}
    sizes = [weights[name].numel() for name in affine]
    ranks = [0 if factor is None else factor.shape[1] for _, factor in affine.values()]
    noisy: dict[str, Tensor] = {}
    if affine:
        like = weights[next(iter(affine))]
        count = sum(sizes) + sum(ranks)
        normal = torch.randn(count, generator=generator, device=like.device, dtype=like.dtype)
        e1s, e2s = normal[: sum(sizes)].split(sizes), normal[sum(sizes) :].split(ranks)
        for (name, (scale, factor)), e1, e2 in zip(affine.items(), e1s, e2s, strict=True):
            clean = weights[name]
            noise = scale * e1.view(clean.shape)
            if factor is not None and len(e2):
                noise = noise + (factor @ e2).view(clean.shape)
            noisy[name] = clean + noise
    for name in noises:
        if name not in affine:
            noisy[name] = noises[name](weights[name], generator)
    return noisy
