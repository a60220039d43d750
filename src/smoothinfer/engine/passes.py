"""The engine: runs many passes of a random network over images, as fast as the machine allows.

A pass is planned once (see `Plan`): batch normalisation goes into the convolutions, all noisy
weights come from one stream, in the format that the machine multiplies fastest. Many images run in
tiles of constant shape; few images share a tile between several passes.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError
from smoothinfer.runtime.modes import check_eval
from smoothinfer.engine.members import disturbed, member_of
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.engine.plan import Network, Plan
from smoothinfer.numerics.precision import resolve_precision, tile_for
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream
from smoothinfer.types import Images, Logits

_SMALLEST = 8
# Networks side by side run as grouped convolutions: the fewer the images, the more that gains,
# until one network after the other is as fast (ResNet-20, two cores of an EPYC, Zen 3).
_SIDE_BY_SIDE = 8
_STACK_BYTES = 2**28


def passes(
    model: nn.Module,
    images: Images,
    samples: int,
    seed: int,
    *,
    first: int = 0,
    tile: int | None = None,
    per_image: bool = False,
    precision: str = "auto",
) -> Iterator[Logits]:
    """Yield the logits (N, K) of passes ``first`` to ``first + samples - 1``, without gradients.

    Args:
        model: a `NoisyModel`, or any random module, in eval mode.
        images: (N, C, H, W).
        samples: number of passes.
        seed: key of the ensemble.
        first: index of the first pass, so that a run can be continued.
        tile, per_image, precision: see `Engine`.

    Raises:
        InputError: see `Engine`.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
    >>> len(list(passes(noisy, torch.rand(2, 1, 2, 2), samples=3, seed=0)))
    3
    """
    engine = Engine(model, images, seed, tile=tile, per_image=per_image, precision=precision)
    return engine.run(images, first, samples)


class Engine:
    """Passes of one random network, planned for images of one shape.

    It reads the weights once: make a new one when they have changed.

    Args:
        model: a `NoisyModel`, or any random module, in eval mode.
        images: (N, C, H, W), of the shape and on the device of those that `run` will get.
        seed: key of the ensemble.
        tile: images of one forward; by default what suits the device. The last tile is filled
            up to a power of two, since a convolution's last bits may depend on its batch's shape.
        per_image: input noise for every image of its own.
        precision: ``"auto"`` (bfloat16 where the device multiplies it in hardware), ``"bf16"`` or
            ``"fp32"``.
        compile: run the plan through ``torch.compile``: every new plan waits for the compiler.

    Raises:
        InputError: batch normalisation is in training mode, so that a verdict would depend on
            the batch, or the precision is unknown.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> images = torch.rand(2, 1, 2, 2)
    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
    >>> Engine(noisy, images, seed=0, tile=256, precision="fp32")
    Engine(fp32 on cpu, tiles of 256, up to 256 passes at once)
    """

    def __init__(
        self,
        model: nn.Module,
        images: Images,
        seed: int,
        *,
        tile: int | None = None,
        per_image: bool = False,
        precision: str = "auto",
        compile: bool = False,
    ) -> None:
        check_eval(model)
        self.model, self.seed, self.per_image = model, seed, per_image
        self.device = images.device
        self.precision = resolve_precision(precision, images.device)
        self.tile = tile_for(images, self.precision) if tile is None else tile
        self.why, plan = self._plan(images)
        self.plan = plan
        self._choose_precision(images)
        if plan is not None and isinstance(model, NoisyModel):
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            self.sampler = model.make_sampler(plan, dtype)
            self.fixed = not self.sampler.size
        self._running: Callable[..., Logits] | None = None
        if compile and plan is not None:
            self._running = torch.compile(plan.run_with, dynamic=False)

    def _choose_precision(self, images: Images) -> None:
        """Fall back to fp32 where the model does not run in bfloat16."""
        self.not_short = ""
        if self.precision == "fp32" or len(images) == 0:
            return
        if self.plan is None:
            self.precision = "fp32"
        elif self.plan.try_short(self.model.module, _pair(images)):  # type: ignore[arg-type]
            self.precision, self.not_short = "fp32", self.plan.not_short

    def _plan(self, images: Images) -> tuple[str, Plan | None]:
        """Return the plan of the model, or why there is none."""
        if not isinstance(self.model, NoisyModel):
            return "it is not a NoisyModel", None
        plan = self.model.plan()
        if isinstance(plan, str):
            return plan, None
        wrong = plan.prove(self.model.module, _pair(images)) if len(images) else ""
        return (wrong, None) if wrong else ("", plan)

    def run(self, images: Images, first: int, samples: int) -> Iterator[Logits]:
        """Yield the logits (N, K) of passes ``first`` to ``first + samples - 1``.

        Raises:
            InputError: the images hold NaN, the model returns NaN or infinite logits, or the
                memory does not suffice for the smallest tile.
        """
        for block in self.blocks(images, first, samples):
            yield from block

    def blocks(self, images: Images, first: int, samples: int) -> Iterator[Tensor]:
        """Yield what `run` yields, as many passes at a time as were run together (S, N, K)."""
        if not images.isfinite().all():  # a rectifier fused into a convolution takes NaN for 0
            raise InputError("the images hold NaN or infinite pixels")
        block, at, end = self.block(len(images)), first, first + samples
        while at < end:
            indices = range(at, min(at + block, end))
            try:
                with torch.no_grad(), self._precisely():
                    logits = self._passes(images, indices).float()
            except _OUT_OF_MEMORY as error:
                if block == 1 or not _is_out_of_memory(error):
                    raise
                block //= 2
                continue
            if not logits.isfinite().all():
                wrong = [bool(row.isfinite().all()) for row in logits].index(False)
                raise InputError(
                    f"the model returned NaN or infinite logits in pass {indices[wrong]}"
                )
            yield logits
            at = indices.stop

    @property
    def by_place(self) -> bool:
        """Say whether a pass may be another for an image in another place of its batch."""
        return self.plan is None or self.plan.random

    def _precisely(self) -> contextlib.AbstractContextManager[object]:
        """Somebody's autocast around a call must not change what ``precision`` says."""
        if self.plan is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, enabled=False)

    def block(self, count: int) -> int:
        """Return how many passes to run at once on ``count`` images."""
        if self.plan is None or self.plan.random:
            return 1
        room = max(1, self.tile // max(1, count))
        if self.fixed:
            return room
        if not self.plan.can_stack(self.sampler.names):
            return 1
        stacked = _STACK_BYTES // (4 * self.sampler.size)
        return min(room, max(1, stacked)) if count <= _SIDE_BY_SIDE else 1

    def _passes(self, images: Images, indices: range) -> Tensor:
        """Return the logits (passes, N, K)."""
        if self.plan is None:
            return torch.stack([self._foreign(images, s) for s in indices])
        noise = self.model.inputs
        seen = [disturbed(noise, images, self.seed, s, self.per_image) for s in indices]  # type: ignore[arg-type]
        if self.fixed:
            with isolated_rng(derive_seed(self.seed, "module", indices.start)):
                flat = self._tiled(self._network(self.sampler.fixed), torch.cat(seen))
            return flat.unflatten(0, (len(indices), len(images)))
        streams = [stream(self.seed, "weights", s, device=images.device) for s in indices]
        weights = self.sampler.draw_block(streams)
        if len(indices) == 1:
            tensors = self.sampler.fixed | {name: drawn[0] for name, drawn in weights.items()}
            with isolated_rng(derive_seed(self.seed, "module", indices.start)):
                return self._tiled(self._network(tensors), seen[0])[None]
        return self.plan.run_side_by_side(self.sampler.fixed, weights, torch.stack(seen))

    def _foreign(self, images: Images, s: int) -> Logits:
        return self._tiled(member_of(self.model, self.seed, s, self.per_image), images)

    def _network(self, tensors: dict[str, Tensor]) -> Network:
        return lambda images: self._run(tensors, images)

    def _run(self, tensors: dict[str, Tensor], images: Images) -> Logits:
        assert self.plan is not None
        if self._running is not None:
            try:
                return self._running(tensors, self.plan.leaves, images)
            except Exception as error:  # a compiler may fail in any way on somebody's network
                if _is_out_of_memory(error):
                    raise
                warnings.warn(f"runs uncompiled: torch.compile failed: {error}", stacklevel=2)
                self._running = None
        return self.plan.run(tensors, images)

    def _tiled(self, network: Network, images: Images) -> Logits:
        """Run ``network`` in tiles; too little memory halves them, now and from now on."""
        rows: list[Logits] = []
        done = 0
        while done < len(images):
            part, count = next(tiles(images[done:], self.tile))
            try:
                rows.append(network(part)[:count])
                done += count
            except _OUT_OF_MEMORY as error:
                if self.tile <= 1 or not _is_out_of_memory(error):
                    raise
                self.tile //= 2
        return torch.cat(rows)

    def __repr__(self) -> str:
        parts = [f"{self.precision} on {self.device}", f"tiles of {self.tile}"]
        if self.not_short:
            parts[0] += f" (not bf16: {self.not_short})"
        if self.plan is None:
            parts.append(f"pass by pass, unfolded: {self.why}")
        else:
            if self.plan.folded:
                parts.append(f"{len(self.plan.folded)} normalisations folded")
            parts.append(f"up to {max(self.block(1), self.block(2))} passes at once")
            parts += ["compiled"] * (self._running is not None)
        return f"Engine({', '.join(parts)})"


def _pair(images: Images) -> Images:
    return images[:1].expand(2, *images.shape[1:])


_OUT_OF_MEMORY = (torch.OutOfMemoryError, RuntimeError, MemoryError)


def _is_out_of_memory(error: BaseException) -> bool:
    told = str(error).lower()
    named = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return named or "out of memory" in told or "can't allocate memory" in told


def tiles(images: Images, size: int) -> Iterator[tuple[Images, int]]:
    """Yield ``(tile, how many of its images count)``; what is missing repeats its first.

    Sizes are powers of two from 8 to ``size``: a rest is split where that wastes less.

    >>> [(len(part), count) for part, count in tiles(torch.rand(29, 1, 2, 2), 16)]
    [(16, 16), (16, 13)]
    >>> [(len(part), count) for part, count in tiles(torch.rand(27, 1, 2, 2), 16)]
    [(16, 16), (8, 8), (8, 3)]
    """
    at = 0
    while at < len(images):
        left = len(images) - at
        full = min(size, max(_SMALLEST, 1 << (left - 1).bit_length()))
        if left < full and full > _SMALLEST and left <= 0.75 * full:
            full //= 2
        part = images[at : at + full]
        filler = part[:1].expand(full - len(part), *part.shape[1:])
        whole = part if len(part) == full else torch.cat([part, filler])
        # The format of a single image is ambiguous: say it, or other kernels run.
        yield whole.contiguous(memory_format=torch.channels_last), len(part)
        at += full
