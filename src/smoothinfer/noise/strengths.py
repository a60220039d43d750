"""How strong the learned noise of a model is, relative to what it disturbs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from smoothinfer.noise.placement import on_activations
from smoothinfer.types import Images

if TYPE_CHECKING:
    from collections.abc import Callable

    from smoothinfer.noise.noisy_model import NoisyModel

Disturbed = dict[str, tuple[nn.Module, Tensor]]


def strengths_of(model: NoisyModel, images: Images | None = None) -> dict[str, float]:
    """Return what `NoisyModel.strengths` does."""
    found: Disturbed = {
        name: (noise, model.module.get_parameter(name))
        for name, noise in model.noise_of_weights().items()
    }
    if images is not None:
        found |= _disturbed(model, images)
    return {
        name: noise.strength(clean)  # type: ignore[operator]
        for name, (noise, clean) in found.items()
        if hasattr(noise, "strength")
    }


def _disturbed(model: NoisyModel, images: Images) -> Disturbed:
    """Return the noise of the inputs and of each layer's activations, with what it disturbs."""
    found: Disturbed = {}
    if model.inputs is not None:
        found["inputs"] = (model.inputs, images)

    def keeper(name: str, noise: nn.Module) -> Callable[[Tensor], Tensor]:
        def keep(clean: Tensor) -> Tensor:
            found[name] = (noise, clean)
            return clean

        return keep

    changes = {name: keeper(name, noise) for name, noise in model.noise_of_activations().items()}
    if changes:
        with torch.no_grad(), on_activations(model.module, changes, model.side):
            model.module(images)
    return found
