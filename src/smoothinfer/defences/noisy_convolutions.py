"""Random self-ensemble: Gaussian noise before every convolution (Liu et al. 2018)."""

from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.noise import Gaussian, NoisyModel


def self_ensemble(
    network: nn.Module,
    shape: tuple[int, int, int] = (3, 32, 32),
    first: float = 0.2,
    inner: float = 0.1,
) -> nn.Module:
    """x <- x + sigma N(0, I) before every convolution, in training and in every pass.

    A `NoisyModel` with noise on the inputs of its convolutions. Trained by the natural loss under
    this noise; the published vote averages the softmax over passes (rule ``soft``).

    Args:
        network: with convolutions.
        shape: (C, H, W) of an image.
        first, inner: sigma before the first convolution, in pixels, and before the others.

    Raises:
        InputError: the network has no convolution, or a sigma is negative.

    Source: Liu et al. 2018, *Towards Robust Neural Networks via Random Self-ensemble*, ECCV,
    arXiv 1712.00673; sigmas of the authors' code.

    >>> import torch
    >>> net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten())
    >>> self_ensemble(net, (3, 6, 6))(torch.rand(2, 3, 6, 6)).shape
    torch.Size([2, 8])
    """
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    if not names:
        raise InputError("the network has no convolution, before which noise could be added")
    # The first in pixels, in front of a normalisation: the authors' networks have none.
    noises = dict.fromkeys(names[1:], Gaussian(inner))
    return NoisyModel(
        network, Gaussian(first), activations=noises or None, side="input", shape=shape
    )
