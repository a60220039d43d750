"""What noise adds to the loss of a training, such as a divergence from a prior."""

import torch
from torch import Tensor, nn

from smoothinfer.noise.noisy_model import NoisyModel


def penalty_of(model: nn.Module) -> Tensor | float:
    """Return the sum of the penalties of all noise in ``model``, 0 where no noise adds any.

    >>> penalty_of(NoisyModel(nn.Flatten()))
    0.0
    """
    parts = (part for part in model.modules() if isinstance(part, NoisyModel))
    terms = [term for part in parts for term in _penalties(part)]
    return torch.stack(terms).sum() if terms else 0.0


def _penalties(noisy: NoisyModel) -> list[Tensor]:
    held = [(noise, name.rpartition(".")[0]) for name, noise in noisy.noise_of_weights().items()]
    held += [(noise, name) for name, noise in noisy.noise_of_activations().items()]
    layers = noisy.module.get_submodule
    terms = [noise.penalty(getattr(layers(name), "weight", None)) for noise, name in held]
    return [term for term in terms if term is not None]
