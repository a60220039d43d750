"""The strength of learned noise, relative to the tensor that it disturbs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from smoothinfer.noise.placement import on_activations
from smoothinfer.types import Images

Disturbed = dict[str, tuple[nn.Module, Tensor]]  # a noise and the clean tensor, by place


def strengths_of(disturbed: Disturbed) -> dict[str, float]:
    """Return the strength of each learned noise; noise without a learned strength is left out."""
    return {
        name: noise.strength(clean)  # type: ignore[operator]
        for name, (noise, clean) in disturbed.items()
        if hasattr(noise, "strength")
    }


def activations_of(
    module: nn.Module, noises: Mapping[str, nn.Module], side: str, images: Images
) -> Disturbed:
    """Return the noise of each layer's activations with these activations on ``images``."""
    recorded: Disturbed = {}

    def recorder(name: str, noise: nn.Module) -> Callable[[Tensor], Tensor]:
        def record(clean: Tensor) -> Tensor:
            recorded[name] = (noise, clean)
            return clean

        return record

    changes = {name: recorder(name, noise) for name, noise in noises.items()}
    if changes:
        with torch.no_grad(), on_activations(module, changes, side):
            module(images)
    return recorded
