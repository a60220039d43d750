"""A convolution together with the sum and the rectifier after it, in one sweep over the features.

Between two convolutions a residual network adds and rectifies. Each is a walk through memory, which
is expensive where bfloat16 units make the convolution itself cheap. oneDNN does both while a result
is still in a register, with the same last bits.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

from smoothinfer.engine.stacking import POINTWISE
from smoothinfer.numerics.precision import has_bf16_units

Settings = tuple[Any, Any, Any, int]  # stride, padding, dilation, groups
_SUMS = (operator.add, torch.add)
# In fp32 a sum in place was as fast (ResNet-20, Zen 3): the convolution is what takes the time.
_SUMS_IN = (torch.bfloat16,)
_RECTIFIERS = (F.relu, torch.relu, torch.relu_)


def fuse(graph: fx.Graph, leaves: Mapping[str, nn.Module], conv: Callable[..., Any]) -> int:
    """Rewrite ``graph`` so that its calls of ``conv`` also sum and rectify; count the steps saved.

    Args:
        graph: steps ``conv(tensors, leaves, name, args, kwargs)`` and others, in order.
        leaves: the layers by name.
        conv: the step to fuse with; it takes ``plus`` (added to the result) and ``rectify``.
    """
    before = len(graph.nodes)
    place = {node: at for at, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in _SUMS and not node.kwargs:
            _fuse_sum(graph, node, place, conv)
        elif (source := _rectifier_input(node, leaves)) is not None and _can_fuse(source, conv):
            source.kwargs = source.kwargs | {"rectify": True}
            _replace(graph, node, source)
    return before - len(graph.nodes)


def convolution(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, int],
    padding: Any,
    dilation: tuple[int, int],
    groups: int,
    plus: Tensor | None,
    rectify: bool,
) -> Tensor:
    """Return relu(conv(features) + plus), sum and rectifier only where asked for.

    >>> x, w = torch.randn(2, 3, 5, 5), torch.randn(4, 3, 3, 3)
    >>> fused = convolution(x, w, None, (1, 1), (1, 1), (1, 1), 1, None, True)
    >>> torch.allclose(fused, F.conv2d(x, w, padding=1).relu(), atol=1e-5)
    True
    """
    settings = stride, padding, dilation, groups
    if _runs_fused(features, weight, bias, plus, rectify, padding) and (
        plus is None
        or (
            (groups == 1 and _channels_last(features))  # else oneDNN sums in a separate step
            and plus.shape == _output_shape(features, weight, stride, padding, dilation)
        )
    ):
        if _needs_gradient(features, plus):
            return _Fused.apply(features, weight, bias, settings, plus, rectify)  # type: ignore[no-any-return]
        return _fused(features, weight, bias, settings, plus, rectify)
    return finish(F.conv2d(features, weight, bias, *settings), plus, rectify)


def _fused(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    settings: Settings,
    plus: Tensor | None,
    rectify: bool,
) -> Tensor:
    stride, padding, dilation, groups = settings
    arguments = (weight, bias, padding, stride, dilation, groups)
    if plus is None:
        return POINTWISE(features, *arguments, "relu", [], "")  # type: ignore[misc]
    after = "relu" if rectify else None
    return POINTWISE.binary(features, plus, *arguments, "add", 1.0, after, [], "")  # type: ignore[union-attr]


class _Fused(torch.autograd.Function):
    """The same with a gradient for features and sum, not for weights, as an attack needs it."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        settings: Settings,
        plus: Tensor | None,
        rectify: bool,
    ) -> Tensor:
        output = _fused(features, weight, bias, settings, plus, rectify)
        ctx.save_for_backward(features, weight, output if rectify else None)
        ctx.settings, ctx.sizes = settings, None if bias is None else [len(bias)]
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        features, weight, output = ctx.saved_tensors
        if output is not None:
            grad = torch.ops.aten.threshold_backward(grad, output, 0)
        gradient = None
        if ctx.needs_input_grad[0]:
            stride, padding, dilation, groups = ctx.settings
            given = (ctx.sizes, stride, padding, dilation, False, (0, 0), groups)
            outputs = (True, False, False)
            gradient = torch.ops.aten.convolution_backward(grad, features, weight, *given, outputs)[
                0
            ]
        return gradient, None, None, None, grad if ctx.needs_input_grad[4] else None, None


def finish(output: Tensor, plus: Tensor | None, rectify: bool) -> Tensor:
    """Return relu(output + plus) in the memory of ``output`` where that is large enough."""
    if plus is not None:
        fits = plus.shape == output.shape and plus.dtype == output.dtype
        output = output.add_(plus) if fits else output + plus
    return output.relu_() if rectify else output


def _fuse_sum(
    graph: fx.Graph, node: fx.Node, place: dict[fx.Node, int], conv: Callable[..., Any]
) -> None:
    terms = [term for term in node.args if isinstance(term, fx.Node)]
    if len(terms) != 2 or terms[0] is terms[1]:
        return
    # The other term must exist when the convolution runs: the later of the two takes it up.
    other, last = sorted(terms, key=place.__getitem__)
    if _can_fuse(last, conv) and not last.kwargs:
        last.kwargs = {"plus": other}
        _replace(graph, node, last)


def _replace(graph: fx.Graph, node: fx.Node, fused: fx.Node) -> None:
    node.replace_all_uses_with(fused)
    graph.erase_node(node)


def _can_fuse(node: fx.Node, conv: Callable[..., Any]) -> bool:
    """Say whether ``node`` is a convolution, not yet rectified, that only the next step uses."""
    return node.target is conv and len(node.users) == 1 and not node.kwargs.get("rectify")


def _rectifier_input(node: fx.Node, leaves: Mapping[str, nn.Module]) -> fx.Node | None:
    """Return the input of ``node`` if it is a rectifier."""
    if node.op == "call_function" and len(node.args) > 3 and isinstance(node.args[2], str):
        source = node.args[3][0] if type(leaves.get(node.args[2])) is nn.ReLU else None  # type: ignore[index]
    elif (node.op == "call_function" and node.target in _RECTIFIERS) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    ):
        source = node.args[0] if node.args else None
    else:
        source = None
    return source if isinstance(source, fx.Node) else None


def _channels_last(features: Tensor) -> bool:
    return features.is_contiguous(memory_format=torch.channels_last) and not (
        features.is_contiguous()
    )


def _needs_gradient(features: Tensor, plus: Tensor | None) -> bool:
    return torch.is_grad_enabled() and (
        features.requires_grad or (plus is not None and plus.requires_grad)
    )


def _runs_fused(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    plus: Tensor | None,
    rectify: bool,
    padding: Any,
) -> bool:
    if POINTWISE is None or torch.compiler.is_compiling() or isinstance(padding, str):
        return False
    learned = weight.requires_grad or (bias is not None and bias.requires_grad)
    if learned and torch.is_grad_enabled():
        return False
    dtype = features.dtype
    known = dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16_units("cpu"))
    if not known or features.device.type != "cpu" or weight.dtype != dtype:
        return False
    needed = rectify if plus is None else plus.dtype == dtype and dtype in _SUMS_IN
    return needed and bool(torch.backends.mkldnn.enabled)


def _output_shape(
    features: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, ...]:
    sides = [
        (size + 2 * pad - far * (kernel - 1) - 1) // step + 1
        for size, kernel, step, pad, far in zip(
            features.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True
        )
    ]
    return (len(features), len(weight), *sides)
