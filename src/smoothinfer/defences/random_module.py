"""The base class of defences that draw random numbers in their own forward."""

from collections.abc import Mapping

from torch import nn


class RandomModule(nn.Module):
    """A module whose passes differ by itself, in training and in eval mode alike.

    The mark keeps the engine from recording one pass as if it were all of them.
    """

    draws_noise = True


def replace_everywhere(network: nn.Module, layers: Mapping[nn.Module, nn.Module]) -> None:
    """Put new layers in the place of old ones, under every name that a network has for them.

    Args:
        network: changed in place.
        layers: the new one by the old one.

    >>> one = nn.ReLU()
    >>> net = nn.Sequential(one, nn.Identity(), one)
    >>> replace_everywhere(net, {one: nn.Tanh()})
    >>> [type(part).__name__ for part in net]
    ['Tanh', 'Identity', 'Tanh']
    """
    names = [(n, part) for n, part in network.named_modules(remove_duplicate=False)]
    for name, part in names:
        if part in layers:
            network.set_submodule(name, layers[part])
