"""Random precision inference (Double-Win Quant, Fu et al. 2021)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from smoothinfer.defences.random_module import RandomModule
from smoothinfer.errors import InputError, plain_int, plain_list
from smoothinfer.types import Images, Logits

_LAYERS = (nn.Conv2d, nn.Linear)


def quantise(tensor: Tensor, bits: int, by_image: bool = False) -> Tensor:
    """Round to 2^bits - 1 equal steps between -max |t| and max |t|; gradients pass unchanged.

    The maximum is over the whole tensor, or ``by_image`` over each image's own features.

    >>> quantise(torch.tensor([-1.0, 0.2, 1.0]), 2).tolist()
    [-1.0, 0.0, 1.0]
    """
    steps = 2 ** (bits - 1) - 1
    size = tensor.detach().abs()
    largest = size.amax(tuple(range(1, tensor.ndim)), keepdim=True) if by_image else size.amax()
    scale = largest.clamp_min(1e-12) / steps
    return tensor + ((tensor / scale).round() * scale - tensor).detach()


class RandomPrecision(RandomModule):
    """The network with weights and inputs of its layers in few bits; see `random_precision`."""

    def __init__(self, network: nn.Module, bits: Sequence[int]) -> None:
        super().__init__()
        self.network, self.bits = network, tuple(bits)
        self.training = network.training

    def forward(self, images: Images) -> Logits:
        bits = self.bits[int(torch.randint(len(self.bits), ()))]
        layers = {n: p for n, p in self.network.named_modules() if isinstance(p, _LAYERS)}
        weights = {f"{n}.weight".lstrip("."): quantise(p.weight, bits) for n, p in layers.items()}

        def shorten(part: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
            return (quantise(given[0], bits, by_image=True), *given[1:])

        handles = [part.register_forward_pre_hook(shorten) for part in layers.values()]
        try:
            return functional_call(self.network, weights, images)  # type: ignore[no-any-return]
        finally:
            for handle in handles:
                handle.remove()


def random_precision(network: nn.Module, bits: Sequence[int] = tuple(range(4, 17))) -> nn.Module:
    """Run every pass in a precision of its own, b bits drawn from ``bits`` for all layers.

    Random precision inference without the training of it: on a network trained in one precision.
    It is a finite mixture of ``len(bits)`` networks.

    Args:
        network: with convolutions or linear layers.
        bits: from which b is drawn, each 2 to 24; the authors' 4 to 16.

    Raises:
        InputError: a number of bits is out of range, or there is no layer to run so.

    Source: Fu et al. 2021, *Double-Win Quant*, ICML. Its authors report 57.1 % under
    PGD-20 (8/255, PreActResNet-18), 51.2 % without, by an attack on one frozen precision.

    >>> random_precision(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))(torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 2])
    """
    if not any(isinstance(part, _LAYERS) for part in network.modules()):
        raise InputError("the network has no convolution and no linear layer to run in few bits")
    wanted = [plain_int("bits", each, 2, 24) for each in plain_list("bits", bits)]
    return RandomPrecision(network, wanted)
