"""Plan and samplers of one model, kept until a layer, a setting or a tensor changes."""

import contextlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from smoothinfer.engine.plan import Plan
from smoothinfer.engine.sampler import Sampler
from smoothinfer.engine.tracing import PlanError

Versions = tuple[tuple[int, ...], ...] | None
Ingredients = tuple[Plan | None, torch.dtype, list[Tensor]]


@dataclass(frozen=True)
class _Entry:
    sampler: Sampler
    plan: Plan | None
    dtype: torch.dtype
    tensors: list[Tensor]
    versions: Versions
    contents: list[int] | None = None

    def fits(self, plan: Plan | None, dtype: torch.dtype, tensors: Sequence[Tensor]) -> bool:
        same = self.plan is plan and self.dtype == dtype and self.versions is not None
        return same and self.versions == _versions(tensors)


class SamplerCache:
    """The plan and the samplers of one model.

    A walk through all layers, to see whether one was exchanged or changed its mode, takes as long
    as a small network's pass on a GPU: inside `hold` it is done once.
    """

    def __init__(self) -> None:
        self._plan: Plan | str | None = None
        self._entries: dict[Hashable, _Entry] = {}
        self._seen: set[Hashable] | None = None  # keys asked for since layers are held

    def plan(self, module: nn.Module) -> Plan | str:
        """Return the plan of ``module`` as it is now, or why there is none."""
        if not isinstance(self._plan, Plan) or not self._plan.fits(module):
            try:
                self._plan = Plan(module)
            except PlanError as error:
                self._plan = str(error)
        return self._plan

    @property
    def layers_known(self) -> bool:
        """Whether layers are held, and a pass has walked through them since."""
        return bool(self._seen)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Inside, layers and modes do not change; weights may still change."""
        before, self._seen = self._seen, set() if self._seen is None else self._seen
        try:
            yield
        finally:
            self._seen = before

    def get(
        self,
        key: Hashable,
        ingredients: Callable[[], Ingredients],
        make: Callable[[Plan | None, torch.dtype], Sampler],
        check_contents: bool = False,
    ) -> Sampler:
        """Return the cached sampler, rebuilding it if the plan, dtype or any tensor changed.

        Args:
            key: names the use, such as the format of the forward pass.
            ingredients: returns plan, dtype and tensors; asked only where layers may have changed.
            make: makes a sampler.
            check_contents: also compare the tensors' contents, in case one was changed through
                ``.data``, which leaves its version as it was.
        """
        entry = self._entries.get(key)
        if entry is not None and self._seen is not None and key in self._seen:
            plan, dtype, tensors = entry.plan, entry.dtype, entry.tensors
        else:
            plan, dtype, tensors = ingredients()
        contents = _contents(tensors) if check_contents else None
        valid = entry is not None and entry.fits(plan, dtype, tensors)
        if entry is None or not valid or entry.contents != contents:
            entry = _Entry(make(plan, dtype), plan, dtype, tensors, _versions(tensors), contents)
            self._entries[key] = entry
        if self._seen is not None:
            self._seen.add(key)
        return entry.sampler


def _versions(tensors: Sequence[Tensor]) -> Versions:
    """Return numbers that change when a tensor changes; ``None`` for tensors that have none."""
    if any(t.is_inference() for t in tensors):
        return None
    return tuple((id(t), t.data_ptr(), t._version) for t in tensors)


def _contents(tensors: Sequence[Tensor]) -> list[int]:
    """Return a checksum of each tensor: the sum of its bits, read as whole numbers."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    flat = [tensor.detach().reshape(-1) for tensor in tensors if tensor.numel()]
    bits = [each.view(whole.get(each.element_size(), torch.uint8)) for each in flat]
    return torch.stack([each.sum(dtype=torch.int64) for each in bits]).tolist() if bits else []
