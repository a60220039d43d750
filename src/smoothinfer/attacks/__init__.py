"""Floor 4: attacks see an `nn.Module` and nothing else.

Every attack is a function ``(model, images, labels, ball, *, generator=None, ...) -> images``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smoothinfer.attacks.auto_pgd import apgd
from smoothinfer.attacks.gradients import GRADIENTS
from smoothinfer.attacks.minimum_norm import cw, ddn
from smoothinfer.attacks.multi_targeted import multitargeted
from smoothinfer.attacks.nes_attack import nattack
from smoothinfer.attacks.losses import OBJECTIVES
from smoothinfer.attacks.projected_gradient import fgsm, kl_pgd, pgd
from smoothinfer.attacks.square_attack import square
from smoothinfer.attacks.transfer_attack import transfer
from smoothinfer.types import Images

Attack = Callable[..., Images]

epgd = partial(pgd, draws=8)
smoothadv = partial(pgd, draws=8, gradient="pooled")

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "epgd": epgd,
    "smoothadv": smoothadv,
    "kl_pgd": kl_pgd,
    "high_k": partial(pgd, steps=56),
    "multitargeted": multitargeted,
    "apgd": apgd,
    "apgd_dlr": partial(apgd, objective="dlr"),
    "cw": cw,
    "ddn": ddn,
    "nattack": nattack,
    "square": square,
    "transfer": transfer,
}

__all__ = [
    "ATTACKS",
    "GRADIENTS",
    "OBJECTIVES",
    "Attack",
    "apgd",
    "cw",
    "ddn",
    "epgd",
    "fgsm",
    "kl_pgd",
    "multitargeted",
    "nattack",
    "pgd",
    "smoothadv",
    "square",
    "transfer",
]
