"""Several networks as one: every pass answers with the mean of their probabilities."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from smoothinfer.errors import InputError, check_type
from smoothinfer.types import Images, Logits


class Ensemble(nn.Module):
    """log (1/k) sum_i softmax f_i(x): the soft mean of k networks, all in every pass.

    Under noise on the pixels all members of a pass see one noisy image. The variance of a pass is
    then that of one network times (1 + c (k - 1)) / k, c the correlation of two members, which
    makes the vote clearer and the certificates larger. Certify and attack it like any network.

    Args:
        networks: from pixels to logits; noise goes around the ensemble, so give those of noisy
            models without it (``model.module``).

    Raises:
        InputError: there is none, or one is no module.

    Source: Horvath et al., *Boosting Randomized Smoothing with Variance Reduced Classifiers*, ICLR
    2022, arXiv 2106.06946.

    >>> one, two = (nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2))
    >>> answer = Ensemble([one, two])(torch.rand(2, 1, 2, 2))
    >>> bool(torch.allclose(answer.exp().sum(1), torch.ones(2)))
    True
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        if isinstance(networks, nn.Module) and not isinstance(networks, nn.ModuleList):
            raise InputError("give the networks of an ensemble as a list, not one module")
        if not len(networks):
            raise InputError("an ensemble needs at least one network")
        for network in networks:
            check_type("network", network, nn.Module, "Ensemble([model.module, ...])")
        self.networks = nn.ModuleList(networks)
        self.training = networks[0].training

    def forward(self, images: Images) -> Logits:
        each = [network(images).float() for network in self.networks]
        if len({answer.shape for answer in each}) > 1:
            raise InputError(f"members have {[a.shape[1] for a in each]} classes, not the same")
        answers = torch.stack(each)
        return answers.log_softmax(2).logsumexp(0) - math.log(len(self.networks))


def member_correlation(ensemble: Ensemble, images: Images) -> float:
    """Return c, the mean correlation over ``images`` of two members' leads of the first class.

    It is measured on the logits of each member, the leader's against the runner-up's, over noisy
    copies of one image: (copies, C, H, W).

    Raises:
        InputError: there are fewer than two members, or a lead does not vary.
    """
    if len(ensemble.networks) < 2:
        raise InputError("a correlation needs at least two members")
    with torch.no_grad():
        answers = torch.stack([network(images).double() for network in ensemble.networks])
    first, second = answers.mean((0, 1)).topk(2).indices.tolist()
    leads = answers[:, :, first] - answers[:, :, second]
    if not (leads.std(1) > 0).all():
        raise InputError("a member answers all of these images alike")
    table = torch.corrcoef(leads)
    count = len(table)
    return float((table.sum() - table.trace()) / (count * (count - 1)))
