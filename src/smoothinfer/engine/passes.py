"""The engine runs many passes of a random network over images, as fast as the machine allows.

A pass is planned once (see `Plan`): batch normalisation goes into the convolutions, all noisy
weights come from one stream, in the format that the machine multiplies fastest. Many images run in
tiles of constant shape; several passes over few images share a tile.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from smoothinfer.engine.members import NoisyNetwork, member_of, noisy_images
from smoothinfer.engine.number_format import choose_sampler
from smoothinfer.engine.plan import Network, Plan
from smoothinfer.engine.pool import BLOCK, Drawn, NetworkPool
from smoothinfer.engine.tiles import tiles
from smoothinfer.errors import InputError
from smoothinfer.numerics.precision import resolve_precision, tile_for
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import check_eval
from smoothinfer.runtime.out_of_memory import OUT_OF_MEMORY, is_out_of_memory
from smoothinfer.types import Images, Logits

# Stacked networks run as grouped convolutions: the fewer the images, the more that gains, until
# one network after the other is as fast (ResNet-20, two cores of an EPYC, Zen 3).
_STACKED_IMAGES = 8
_STACK_BYTES = 2**28
_ALIKE = 2**18  # images times passes of a model without noise, which all are one pass


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

    Arguments and errors are those of `Engine`; ``first`` continues an earlier run.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
    >>> len(list(passes(noisy, torch.rand(2, 1, 2, 2), samples=3, seed=0)))
    3
    """
    engine = Engine(model, images, seed, tile=tile, per_image=per_image, precision=precision)
    for block in engine.blocks(images, first, samples):
        yield from block


class Engine:
    """Passes of one random network, planned for images of one shape.

    Plan and sampler are kept with the model and renewed when a layer or a tensor has changed, so
    an engine is cheap to make. It reads the weights once: make a new one after a change.

    Args:
        model: a `NoisyModel`, or any random module, in eval mode.
        images: (N, C, H, W), of the shape and on the device of those that `blocks` will get.
        seed: key of the ensemble.
        tile: images of one forward pass; by default a number that suits the device. The last tile
            is filled up to a power of two, since a convolution's last bits may depend on the shape
            of its batch.
        per_image: draw separate input noise for every image.
        precision: ``"auto"`` (bfloat16 where the device multiplies it in hardware and the model
            has noise), ``"bf16"`` or ``"fp32"``. Without noise rounding would overturn answers
            right behind the decision boundary, where attacks stop.
        pool: drawn networks to use, for up to eight images; see `NetworkPool`.
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
        pool: NetworkPool | None = None,
        compile: bool = False,
    ) -> None:
        check_eval(model)
        self.model, self.seed, self.per_image = model, seed, per_image
        self.device = images.device
        resolve_precision(precision, images.device)  # refuses an unknown name
        self.unplanned, self.plan = self._find_plan(images)
        self.precision, self.alike, self.no_bf16 = "fp32", False, ""
        # Without a plan passes can still share a batch, where they differ by their images alone.
        self.batched = self.plan is None and self._may_batch(images)
        if self.plan is not None:
            assert isinstance(self.model, NoisyNetwork)
            found = choose_sampler(self.model, self.plan, images, precision)
            self.sampler, self.alike, self.no_bf16 = found
            self.precision = "bf16" if self.sampler.dtype == torch.bfloat16 else "fp32"
            self.same_weights = not self.sampler.size
        self.tile = tile_for(images, self.precision) if tile is None else tile
        self._drawn = self._find_pool(pool)
        self._kept: tuple[Images, int, Tensor] | None = None
        self._compiled: Callable[..., Logits] | None = None
        if compile and self.plan is not None:
            self._compiled = torch.compile(self.plan.program, dynamic=False)

    def _find_plan(self, images: Images) -> tuple[str, Plan | None]:
        """Return why there is no plan of the model, or ``""`` and the plan."""
        if not isinstance(self.model, NoisyNetwork):
            return "it is not a NoisyModel", None
        plan = self.model.plan()
        if isinstance(plan, str):
            return plan, None
        pair = images[:1].expand(2, *images.shape[1:])
        fault = plan.verify(self.model.module, pair) if len(images) else ""
        return (fault, None) if fault else ("", plan)

    def _may_batch(self, images: Images) -> bool:
        noisy = isinstance(self.model, NoisyNetwork) and len(images) > 0
        return noisy and self.model.answers_alone(images)  # type: ignore[operator, return-value]

    def _find_pool(self, pool: NetworkPool | None) -> Iterator[Drawn] | None:
        """Return the blocks of ``pool``, where networks with weights of their own run together."""
        if pool is None or self.plan is None or self.plan.random or self.same_weights:
            return None
        return pool.blocks(self.sampler) if self.plan.can_stack(self.sampler.names) else None

    def blocks(self, images: Images, first: int, samples: int) -> Iterator[Tensor]:
        """Yield the logits of passes ``first`` to ``first + samples - 1``, (S, N, K) at a time.

        S is the number of passes that ran together.

        Raises:
            InputError: the images hold NaN, the model returns NaN or infinite logits, or the
                memory does not suffice for the smallest tile.
        """
        if not images.isfinite().all():  # a rectifier fused into a convolution turns NaN into 0
            raise InputError("the images hold NaN or infinite pixels")
        block, at, end = self.passes_at_once(len(images)), first, first + samples
        while at < end:
            if (kept := self._take_kept(images, at, end)) is not None:
                yield kept
                at += len(kept)
                continue
            indices = range(at, min(at + block, end))
            try:
                with torch.no_grad(), self._without_autocast():
                    logits = self._run_passes(images, indices).float()
            except OUT_OF_MEMORY as error:
                if block == 1 or not is_out_of_memory(error):
                    raise
                block //= 2
                continue
            if not logits.isfinite().all():
                faulty = [bool(row.isfinite().all()) for row in logits].index(False)
                raise InputError(
                    f"the model returned NaN or infinite logits in pass {indices[faulty]}"
                )
            yield logits
            at = indices.stop

    @property
    def pooled(self) -> bool:
        """Whether passes over few images use networks of a pool."""
        return self._drawn is not None

    @property
    def by_place(self) -> bool:
        """Whether a pass may answer an image differently in another place of its batch."""
        return not self.batched and (self.plan is None or self.plan.random)

    def _without_autocast(self) -> contextlib.AbstractContextManager[object]:
        """A caller's autocast must not change the format that ``precision`` names."""
        if self.plan is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, enabled=False)

    def passes_at_once(self, images: int) -> int:
        """Return how many passes to run together on so many images."""
        room = max(1, self.tile // max(1, images))
        if self.alike:
            return max(1, _ALIKE // max(1, images))
        if self.batched:
            return room
        if self.plan is None or self.plan.random:
            return 1
        if self.same_weights:
            return room
        if not self.plan.can_stack(self.sampler.names):
            return 1
        if images > _STACKED_IMAGES:
            return 1
        if self._drawn is not None:
            return BLOCK
        return min(room, max(1, _STACK_BYTES // (4 * self.sampler.size)))

    def _take_kept(self, images: Images, at: int, end: int) -> Tensor | None:
        """Return passes that an earlier block of a pool left over: it always runs as a whole."""
        if self._kept is None or self._kept[0] is not images or self._kept[1] != at:
            return None
        wanted = self._kept[2][: end - at].float()
        self._kept = images, at + len(wanted), self._kept[2][len(wanted) :]
        return wanted if len(wanted) else None

    def _run_passes(self, images: Images, indices: range) -> Tensor:
        """Return the logits (passes, N, K)."""
        if self.plan is None and not self.batched:
            members = (member_of(self.model, self.seed, s, self.per_image) for s in indices)
            return torch.stack([self._run_tiled(member, images) for member in members])
        if self.alike:  # one pass is all of them
            one = self._run_tiled(partial(self._run_plan, self.sampler.fixed), images)
            return one.expand(len(indices), *one.shape)
        noise = self.model.inputs
        shown = [noisy_images(noise, images, self.seed, s, self.per_image) for s in indices]  # type: ignore[arg-type]
        if self.batched or self.same_weights:
            bare: Network = partial(logits_of, self.model.module)  # type: ignore[arg-type]
            network = bare if self.batched else partial(self._run_plan, self.sampler.fixed)
            with isolated_rng(derive_seed(self.seed, "module", indices.start)):
                flat = self._run_tiled(network, torch.cat(shown))
            return flat.unflatten(0, (len(indices), len(images)))
        assert self.plan is not None
        if self._drawn is not None and len(images) <= _STACKED_IMAGES:
            together = torch.stack([*shown, *shown[:1] * (BLOCK - len(shown))])
            logits = self.plan.run_stacked(self.sampler.fixed, next(self._drawn), together)
            self._kept = images, indices.stop, logits[len(shown) :]
            return logits[: len(shown)]
        streams = [stream(self.seed, "weights", s, device=images.device) for s in indices]
        weights = self.sampler.draw_block(streams)
        if len(indices) == 1:
            tensors = self.sampler.fixed | {name: drawn[0] for name, drawn in weights.items()}
            with isolated_rng(derive_seed(self.seed, "module", indices.start)):
                return self._run_tiled(partial(self._run_plan, tensors), shown[0])[None]
        return self.plan.run_stacked(self.sampler.fixed, weights, torch.stack(shown))

    def _run_plan(self, tensors: dict[str, Tensor], images: Images) -> Logits:
        assert self.plan is not None
        if self._compiled is not None:
            try:
                return self._compiled(tensors, self.plan.leaves, images)
            except Exception as error:  # a compiler may fail in any way on a user's network
                if is_out_of_memory(error):
                    raise
                warnings.warn(f"runs uncompiled: torch.compile failed: {error}", stacklevel=2)
                self._compiled = None
        return self.plan.run(tensors, images)

    def _run_tiled(self, network: Network, images: Images) -> Logits:
        """Run ``network`` in tiles; when memory is short, halve the tiles from then on."""
        rows: list[Logits] = []
        done = 0
        while done < len(images):
            tile, count = next(tiles(images[done:], self.tile))
            try:
                rows.append(network(tile)[:count])
                done += count
            except OUT_OF_MEMORY as error:
                if self.tile <= 1 or not is_out_of_memory(error):
                    raise
                self.tile //= 2
        return torch.cat(rows)

    def __repr__(self) -> str:
        parts = [f"{self.precision} on {self.device}", f"tiles of {self.tile}"]
        if self.no_bf16:
            parts[0] += f" (not bf16: {self.no_bf16})"
        if self.plan is None:
            how = f"{self.passes_at_once(1)} passes in a batch" if self.batched else "pass by pass"
            parts.append(f"{how}, unfolded: {self.unplanned}")
        else:
            if self.plan.folded:
                parts.append(f"{len(self.plan.folded)} normalisations folded")
            most = max(self.passes_at_once(1), self.passes_at_once(2))
            parts.append(f"up to {most} passes at once")
            parts += ["from a pool"] * (self.pooled)
            parts += ["compiled"] * (self._compiled is not None)
        return f"Engine({', '.join(parts)})"
