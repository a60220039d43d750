"""Where noise enters: the layers that carry it, their activations, and the hooks that add it."""

import contextlib
import copy
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError, check_type, unknown
from smoothinfer.noise.base import Noise

Where = Noise | Mapping[str, Noise] | None
Change = Callable[[Tensor], Tensor]
SIDES = ("output", "input")  # of a layer
_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)


def assign(module: nn.Module, where: Where, place: str) -> dict[str, Noise]:
    """Return ``{layer name: noise template}`` for the layers that ``where`` names.

    A pattern means convolutions and linear layers. Activations of any other layer, such as a
    normalisation, can be named exactly.

    Raises:
        InputError: something is not a noise, a pattern matches no layer, or none can carry noise.

    >>> from smoothinfer.noise.learned import PNI
    >>> list(assign(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), {"1": PNI()}, "weights"))
    ['1']
    """
    if where is None:
        return {}
    patterns = dict(where) if isinstance(where, Mapping) else {"*": where}
    for noise in patterns.values():
        check_type(place, noise, Noise, f"{place}=CNI(rank=5)")
    exact = set(patterns) if place == "activations" else set()
    layers = [
        name
        for name, part in module.named_modules()
        if isinstance(part, _LAYERS) or (name and name in exact)
    ]
    if not layers:
        hint = ": TorchScript hides them" if isinstance(module, torch.jit.ScriptModule) else ""
        raise InputError(f"the module has no convolution or linear layer to carry noise{hint}")
    for pattern in patterns:
        if not fnmatch.filter(layers, pattern):
            raise unknown("layer pattern", pattern, layers)
    assigned_noises: dict[str, Noise] = {}
    for name in layers:
        hits = [noise for pattern, noise in patterns.items() if fnmatch.fnmatch(name, pattern)]
        if hits:
            assigned_noises[name] = hits[0]
    return assigned_noises


def own_weight(layer: nn.Module, name: str) -> Tensor:
    """Return the weight of ``layer``.

    Raises:
        InputError: the layer computes its weight from other tensors.
    """
    weight = layer._parameters.get("weight")
    if weight is None:
        raise InputError(
            f"layer {name!r} computes its weight (weight_norm or another parametrisation), so no "
            "noise can be added: remove the parametrisation, or leave the layer out with a pattern"
        )
    return weight


@contextlib.contextmanager
def on_activations(module: nn.Module, changes: Mapping[str, Change], side: str) -> Iterator[None]:
    """Pass the activations of the named layers through ``changes``, for one call."""
    with contextlib.ExitStack() as stack:
        for name, change in changes.items():
            layer = module.get_submodule(name)
            handle = (
                layer.register_forward_hook(lambda _, __, out, change=change: change(out))
                if side == "output"
                else layer.register_forward_pre_hook(
                    lambda _, args, change=change: (change(args[0]),)
                )
            )
            stack.callback(handle.remove)
        yield


def activation_shapes(
    module: nn.Module, names: Iterable[str], shape: tuple[int, int, int], side: str
) -> dict[str, torch.Size]:
    """Return the shapes of one image's activations at the ``side`` of layers, where those run.

    >>> activation_shapes(nn.Sequential(nn.Conv2d(1, 2, 3)), ["0"], (1, 5, 5), "output")
    {'0': torch.Size([1, 2, 3, 3])}
    """
    shapes: dict[str, torch.Size] = {}

    def recorder(name: str) -> Change:
        def record(tensor: Tensor) -> Tensor:
            shapes[name] = tensor.shape
            return tensor

        return record

    like = next(iter(module.parameters()))
    probe = copy.deepcopy(module).eval()  # a probe must not touch batch statistics
    with torch.no_grad(), on_activations(probe, {n: recorder(n) for n in names}, side):
        probe(torch.zeros(1, *shape, device=like.device, dtype=like.dtype))
    return shapes
