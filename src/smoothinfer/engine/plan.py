"""The plan of a network: traced once, batch normalisation folded away, tensors as arguments.

In eval mode BN(W x + c) = (a W) x + (b + a (c - mean)) with a = gamma / sqrt(var + eps), so a noisy
weight takes the normalisation along, and the layer itself disappears.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.func import functional_call

from smoothinfer.engine import fusing, stacking
from smoothinfer.engine.stacking import Packed, Stacked
from smoothinfer.engine.tracing import foldable, hooked, settings_of, tensors_of, trace, twins_of
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.types import Images, Logits

Tensors = Mapping[str, Tensor]
StackedTensors = Mapping[str, Tensor | Stacked | Packed]
Network = Callable[[Images], Logits]

_KNOWN = ("torch.nn.", "smoothinfer.networks")
_SEEDS = 16  # of the comparison with a module whose forward may choose at random
_NO_KERNEL = (RuntimeError, NotImplementedError)  # raised by torch for a format without a kernel
# Layers that take features in another format than their weights.
_MIXED = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)
_OF_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Plan:
    """A straight-line program for ``module`` in the modes and settings it has now.

    Args:
        module: any module that `torch.fx` can trace: no branches on what a tensor holds.

    Raises:
        PlanError: it cannot be traced; the message says why.

    >>> module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()).eval()
    >>> plan = Plan(module)
    >>> plan.folded
    {'0': '1'}
    >>> images = torch.rand(1, 1, 4, 4)
    >>> torch.allclose(plan.run(plan.fold(tensors_of(module)), images), module(images), atol=1e-6)
    True
    """

    def __init__(self, module: nn.Module) -> None:
        self.settings = settings_of(module)
        # A third-party layer may do more than a trace shows: its plan is verified on images first.
        self.trusted = all(type(p).__module__.startswith(_KNOWN) for p in module.modules())
        self.random = False
        self.no_bf16: str | None = None  # why it does not run in bfloat16, "" where it does
        self._fault: str | None = None  # why it cannot be used, "" where it can
        graph = trace(module)
        self.folded = {} if twins_of(tensors_of(module)) else foldable(graph, module)
        self.leaves: dict[str, nn.Module] = {}
        self.stackable: set[str] = set()  # layers with steps of their own, below
        self.program = self._write_program(graph, module)
        self._run = self.program

    def fits(self, module: nn.Module) -> bool:
        """Say whether ``module`` still has the layers, modes and settings that were traced."""
        return self.settings == settings_of(module) and not hooked(module)

    def run(self, tensors: StackedTensors, images: Images) -> Logits:
        """Return the logits of ``images`` with the folded ``tensors``."""
        return self._run(tensors, self.leaves, images)

    def compile(self) -> None:
        """From now on run through `torch.compile`, which waits for the compiler at first use."""
        self._run = torch.compile(self.program, dynamic=False)

    def can_stack(self, names: Iterable[str]) -> bool:
        """Say whether several networks, each with its own tensors ``names``, can run as one."""
        return self.stackable >= {name.rpartition(".")[0] for name in names}

    def pack(self, drawn: Tensors, shared: Tensors) -> dict[str, Stacked | Packed]:
        """Lay tensors out for many runs of `run_stacked`.

        Args:
            drawn: of several networks, (S, *shape).
            shared: by all of them; biases of convolutions are laid out beside the weights.
        """
        packed: dict[str, Stacked | Packed] = {}
        for name, each in drawn.items():
            layer = name.rpartition(".")[0]
            packed[name] = stacking.pack(each, self.leaves[layer])
            bias = shared.get(f"{layer}.bias")
            if bias is not None and isinstance(self.leaves[layer], nn.Conv2d):
                packed[f"{layer}.bias"] = Stacked(bias.repeat(len(each), 1))
        return packed

    def run_stacked(
        self, shared: Tensors, own: Mapping[str, Tensor | Stacked | Packed], images: Tensor
    ) -> Tensor:
        """Return the logits (S, N, K) of S networks in one forward pass.

        Args:
            shared: folded tensors that all networks have in common.
            own: tensors that differ between the networks, (S, *shape), or packed.
            images: (S, N, C, H, W).
        """
        tensors: dict[str, Tensor | Stacked | Packed] = dict(shared)
        tensors |= {
            n: Stacked(each) if isinstance(each, Tensor) else each for n, each in own.items()
        }
        rows = images.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        return self.run(tensors, rows).unflatten(0, images.shape[:2])

    @torch.no_grad()
    def verify(self, module: nn.Module, images: Images) -> str:
        """Compare plan and module on ``images``; return ``""`` or why the plan cannot be used.

        The comparison is made once. It also sets ``random``: whether the module is random by itself
        (left-on dropout).
        """
        if self._fault is None:
            tensors = self.fold(tensors_of(module))
            try:
                self._fault = self._compare(module, tensors, images)
            except Exception as error:  # a third-party forward may fail in any way when traced
                self._fault = f"its trace does not run: {error}"
        return self._fault

    def _compare(self, module: nn.Module, tensors: Tensors, images: Images) -> str:
        # A trace records one branch of a random choice: many seeds show whether there are others.
        planned, expected = [], []
        for seed in range(2 if self.trusted else _SEEDS):
            with isolated_rng(seed):
                expected.append(module(images))
            with isolated_rng(seed):
                planned.append(self.run(tensors, images))
        self.random = any(not torch.equal(planned[0], each) for each in planned)
        tolerance = 1e-3 * float(expected[0].abs().amax()) + 1e-6
        for one, other in zip(planned, expected, strict=True):
            if one.shape != other.shape or not (one - other).abs().amax() <= tolerance:
                return "its trace gives other logits than the module"
        return ""

    @torch.no_grad()
    def try_bf16(self, module: nn.Module, images: Images) -> str:
        """Run the plan in bfloat16, once; return ``""`` or why that cannot be done."""
        if self.no_bf16 is None:
            tensors = self.cast(self.fold(tensors_of(module)), torch.bfloat16)
            self.no_bf16 = "a layer does not take it"
            with contextlib.suppress(*_NO_KERNEL), isolated_rng(0):
                self.run(tensors, images)
                self.no_bf16 = ""
        return self.no_bf16

    def cast(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
        """Return ``tensors`` with weights and biases in ``dtype`` for the layers that take it."""
        return {name: t.to(dtype) if self.takes_bf16(name) else t for name, t in tensors.items()}

    def takes_bf16(self, name: str) -> bool:
        """Say whether the layer of the tensor ``name`` takes it in a shorter format."""
        return name.rpartition(".")[0] in self.stackable

    def fold(self, tensors: Tensors) -> dict[str, Tensor]:
        """Return ``tensors`` of the module with every folded normalisation in its convolution."""
        folded = dict(tensors)
        for conv, norm in self.folded.items():
            scale, shift = self.affine(tensors, conv)
            weight, bias = folded[f"{conv}.weight"], folded.get(f"{conv}.bias")
            folded[f"{conv}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
            folded[f"{conv}.bias"] = shift if bias is None else shift + bias * scale
            for name in _OF_NORM:
                folded.pop(f"{norm}.{name}", None)
        return folded

    def affine(self, tensors: Tensors, conv: str) -> tuple[Tensor, Tensor]:
        """Return the normalisation after ``conv`` as scale and shift, one value per channel."""
        norm = self.folded[conv]
        inner = {name: tensors.get(f"{norm}.{name}") for name in _OF_NORM}
        mean, variance = inner["running_mean"], inner["running_var"]
        assert mean is not None
        assert variance is not None
        scale = (variance + self.leaves[norm].eps).rsqrt()  # type: ignore[operator]
        scale = scale if inner["weight"] is None else scale * inner["weight"]
        shift = -mean * scale
        return scale, shift if inner["bias"] is None else shift + inner["bias"]

    def run_in(self, dtype: torch.dtype, tensors: dict[str, Tensor], images: Images) -> Logits:
        """Return the logits; where a layer does not take ``dtype``, those of fp32.

        The weights are in ``dtype`` already, so autocast is off.
        """
        if dtype == torch.bfloat16 and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)  # as its kernels want it
        with torch.autocast(images.device.type, enabled=False):
            try:
                return self.run(tensors, images)
            except _NO_KERNEL:
                if dtype == torch.float32:
                    raise
                self.no_bf16 = "a layer does not take it"
                short = torch.bfloat16
                fp32 = {n: t.float() if t.dtype == short else t for n, t in tensors.items()}
                return self.run(fp32, images)

    def _write_program(self, graph: fx.Graph, module: nn.Module) -> Callable[..., Logits]:
        """Rewrite the trace as one function of (tensors, leaves, images)."""
        program, written = fx.Graph(), {}
        tensors, leaves = (program.placeholder(name) for name in ("tensors", "leaves"))
        norms = set(self.folded.values())
        for node in graph.nodes:
            if node.op == "get_attr":
                written[node] = program.call_function(_take, (tensors, node.target))
            elif node.op != "call_module":
                written[node] = program.node_copy(node, written.__getitem__)
            elif node.target in norms:
                self.leaves[node.target] = module.get_submodule(node.target)
                written[node] = written[node.args[0]]
            else:
                self.leaves[node.target] = module.get_submodule(node.target)
                args = fx.map_arg((node.args, node.kwargs), written.__getitem__)
                step = _STEPS.get(type(self.leaves[node.target]), _leaf)
                if step is not _leaf:
                    self.stackable.add(node.target)
                written[node] = program.call_function(step, (tensors, leaves, node.target, *args))
        self.fused = fusing.fuse(program, self.leaves, _conv)
        program.lint()
        return fx.GraphModule(nn.Module(), program).forward


# The steps of a program: (tensors, leaves, name, args, kwargs) -> value. Weights may be in a
# shorter format than the features that come in, and several networks' side by side.
Leaves = Mapping[str, Any]


def _take(tensors: StackedTensors, name: str) -> Any:
    return tensors[name]


def _leaf(tensors: StackedTensors, leaves: Leaves, name: str, args: Any, kwargs: Any) -> Any:
    part = leaves[name]
    names = [key for key in tensors_of(part) if f"{name}.{key}" in tensors]
    own: Any = {key: tensors[f"{name}.{key}"] for key in names}
    if not own:
        return part(*args, **kwargs)
    if not isinstance(part, _MIXED):  # features may come in a shorter format than it has weights
        dtype = next((t.dtype for t in own.values() if t.is_floating_point()), None)
        args, kwargs = fx.node.map_aggregate(
            (args, kwargs), lambda value: _cast_floats(dtype, value)
        )
    return functional_call(part, own, args, kwargs)


def _cast_floats(dtype: torch.dtype | None, value: Any) -> Any:
    floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(dtype) if floating else value


def _conv(
    tensors: StackedTensors,
    leaves: Leaves,
    name: str,
    args: Any,
    kwargs: Any,
    plus: Tensor | None = None,
    rectify: bool = False,
) -> Tensor:
    weight, bias, part = tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), leaves[name]
    features, padding = _match_dtype(weight, *args, **kwargs), part.padding
    if part.padding_mode != "zeros":
        sides = part._reversed_padding_repeated_twice
        features, padding = F.pad(features, sides, mode=part.padding_mode), (0, 0)
    settings = part.stride, padding, part.dilation, part.groups
    if not isinstance(weight, Tensor):
        alone = plus is None
        convolved = stacking.conv2d(features, weight, bias, *settings, rectify=rectify and alone)
        return convolved if alone else fusing.finish(convolved, plus, rectify)
    assert bias is None or isinstance(bias, Tensor)
    return fusing.convolution(features, weight, bias, *settings, plus, rectify)


def _linear(tensors: StackedTensors, leaves: Leaves, name: str, args: Any, kwargs: Any) -> Tensor:
    del leaves
    weight, bias = tensors[f"{name}.weight"], tensors.get(f"{name}.bias")
    return stacking.linear(_match_dtype(weight, *args, **kwargs), weight, bias)


def _match_dtype(weight: Tensor | Stacked | Packed, input: Tensor) -> Tensor:
    return input.to(weight.each.dtype if isinstance(weight, Stacked) else weight.dtype)


_STEPS: dict[Any, Callable[..., Any]] = {nn.Conv2d: _conv, nn.Linear: _linear}
