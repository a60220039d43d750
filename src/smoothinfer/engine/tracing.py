"""The `torch.fx` trace of a module, and the settings of its layers that the trace relies on."""

import copy
from collections.abc import Mapping

from torch import Tensor, fx, nn

from smoothinfer.networks import Normalize
from smoothinfer.runtime.modes import layers_of

_SETTINGS = ("training", "stride", "padding", "dilation", "groups", "padding_mode", "eps", "p")


class PlanError(Exception):
    """The module cannot be planned; it runs as it is."""


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers of ``module`` by name."""
    return dict(module.named_parameters(remove_duplicate=False)) | dict(
        module.named_buffers(remove_duplicate=False)
    )


def twins_of(tensors: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the other names of each tensor that has several.

    >>> import torch
    >>> one, two = torch.ones(1), torch.ones(1)
    >>> twins_of({"a": one, "b": two, "c": one})
    {'a': ['c'], 'c': ['a']}
    """
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return {
        name: [other for other in names[id(tensor)] if other != name]
        for name, tensor in tensors.items()
        if len(names[id(tensor)]) > 1
    }


def settings_of(module: nn.Module) -> list[tuple[object, ...]]:
    """Return the layers and their settings, which a trace fixes."""
    return [(id(part), *_layer_settings(part)) for part in layers_of(module)]


def _layer_settings(part: nn.Module) -> list[object]:
    held = part.__dict__
    if type(part).__module__.startswith("torch.nn."):
        return [held[name] for name in _SETTINGS if name in held]
    return [(name, value) for name, value in held.items() if _is_simple(value)]


def _is_simple(value: object) -> bool:
    """Say whether a trace may fix ``value``: a number, a string, or a list of them."""
    if isinstance(value, list | tuple):
        return all(_is_simple(each) for each in value)
    return value is None or isinstance(value, bool | int | float | str)


class LayerTracer(fx.Tracer):
    """Follow a module down to its layers; `Normalize` looks at shapes, so it is one."""

    def is_leaf_module(self, part: nn.Module, name: str) -> bool:
        return isinstance(part, Normalize) or super().is_leaf_module(part, name)


def trace(module: nn.Module) -> fx.Graph:
    """Return the trace of ``module``.

    Raises:
        PlanError: there is none that can be used.
    """
    if hooked(module):
        raise PlanError("it has forward hooks")
    if any(getattr(part, "draws_noise", False) for part in module.modules()):
        raise PlanError("it draws random numbers in its forward")
    try:  # a copy, since a forward may keep what it sees
        graph = LayerTracer().trace(copy.deepcopy(module))
    except Exception as error:  # a tracer may fail in any way on a user's forward
        raise PlanError(f"torch.fx cannot trace it: {error}") from error
    if sum(node.op == "placeholder" for node in graph.nodes) != 1:
        raise PlanError("its forward takes more than images")
    owned = tensors_of(module)
    for node in graph.nodes:
        if node.op == "get_attr" and node.target not in owned:
            raise PlanError(
                f"{node.target!r} is a tensor that the module neither registers nor is given"
            )
    return graph


def foldable(graph: fx.Graph, module: nn.Module) -> dict[str, str]:
    """Return ``{convolution: batch normalisation}`` where the one feeds the other alone."""
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    pairs = {}
    for node in calls:
        source = node.args[0] if node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        norm, conv = module.get_submodule(node.target), module.get_submodule(str(source.target))
        once = targets.count(node.target) == targets.count(source.target) == 1
        fits = type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d and not norm.training
        if once and fits and len(source.users) == 1 and norm.running_mean is not None:
            pairs[str(source.target)] = node.target
    return pairs


def hooked(module: nn.Module) -> bool:
    """Say whether a layer of ``module`` has forward hooks."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in layers_of(module))
