"""Floor 4: attacks see an `nn.Module` and nothing else.

Every attack is a function ``(model, images, labels, ball, *, generator=None, ...) -> images``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from smoothinfer.attacks.objectives import OBJECTIVES
from smoothinfer.attacks.pgd import fgsm, pgd
from smoothinfer.types import Images

Attack = Callable[..., Images]

epgd = partial(pgd, draws=8)
smoothadv = partial(pgd, draws=8, gradient="pooled")

ATTACKS: dict[str, Attack] = {
    "fgsm": fgsm,
    "pgd": pgd,
    "epgd": epgd,
    "smoothadv": smoothadv,
}

__all__ = ["ATTACKS", "OBJECTIVES", "Attack", "epgd", "fgsm", "pgd", "smoothadv"]
