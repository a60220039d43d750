"""A mixture: every pass answers by one of several networks (Pinot et al. 2020)."""

from collections.abc import Sequence

import torch
from torch import nn

from smoothinfer.defences.random_module import RandomModule
from smoothinfer.errors import InputError, plain_float
from smoothinfer.types import Images, Logits


class Mixture(RandomModule):
    """Answers by network i with probability ``shares[i]``, one for all images of a batch.

    Args:
        networks: two or more, from pixels to logits.
        shares: their probabilities; all the same by default.

    Raises:
        InputError: there are fewer than two networks, or the shares do not fit them.

    Source: Pinot et al. 2020, *Randomization matters*, ICML, arXiv 2002.11565 (BAT); Dbouk,
    Shanbhag 2023, arXiv 2302.01375 (BARRE). Both train the networks against each other.

    >>> one, two = (nn.Sequential(nn.Flatten(), nn.Linear(4, 2)) for _ in range(2))
    >>> Mixture([one, two], [0.9, 0.1])(torch.rand(3, 1, 2, 2)).shape
    torch.Size([3, 2])
    """

    def __init__(self, networks: Sequence[nn.Module], shares: Sequence[float] = ()) -> None:
        super().__init__()
        if len(networks) < 2 or not all(isinstance(each, nn.Module) for each in networks):
            raise InputError("a mixture needs at least two networks")
        given = [plain_float("share", share, at_least=0) for share in shares]
        given = given or [1.0] * len(networks)
        if len(given) != len(networks) or not sum(given) > 0:
            raise InputError(f"{len(networks)} networks need as many shares, not all 0: {given}")
        self.networks = nn.ModuleList(networks)
        self.shares = [share / sum(given) for share in given]
        self.training = networks[0].training

    def forward(self, images: Images) -> Logits:
        drawn = int(torch.multinomial(torch.tensor(self.shares), 1))
        return self.networks[drawn](images)  # type: ignore[no-any-return]


def mixture(network: nn.Module, *others: nn.Module, shares: Sequence[float] = ()) -> nn.Module:
    """Return the `Mixture` of ``network`` and ``others``.

    >>> mixture(nn.Flatten(), nn.Flatten())(torch.rand(1, 1, 1, 2)).shape
    torch.Size([1, 2])
    """
    return Mixture([network, *others], shares)
