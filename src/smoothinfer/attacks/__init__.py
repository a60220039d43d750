"""Attacks: functions of (model, images, labels, ball) that see a plain `nn.Module`.

Every attack is called ``attack(model, images, labels, ball, *, generator=None, ...)`` and returns
adversarial images.
"""

from collections.abc import Callable
from functools import partial

from smoothinfer.attacks.auto_pgd import apgd
from smoothinfer.attacks.minimum_norm import cw, ddn
from smoothinfer.attacks.multi_targeted import multitargeted
from smoothinfer.attacks.nes_attack import nattack
from smoothinfer.attacks.one_draw_attack import one_draw
from smoothinfer.attacks.projected_gradient import fgsm, kl_pgd, pgd
from smoothinfer.attacks.square_attack import square
from smoothinfer.attacks.standard_attack import standard
from smoothinfer.attacks.transfer_attack import transfer
from smoothinfer.types import Images

Attack = Callable[..., Images]
ARGUMENTS = ("model", "images", "labels", "ball", "generator=")  # of every attack

epgd = partial(pgd, draws=8)
smoothadv = partial(pgd, draws=8, gradient="pooled")

ATTACKS: dict[str, Attack] = {
    "standard": standard,
    "fgsm": fgsm,
    "pgd": pgd,
    "epgd": epgd,
    "smoothadv": smoothadv,
    "kl_pgd": kl_pgd,
    "high_k": partial(pgd, steps=56),
    "multitargeted": multitargeted,
    "apgd": apgd,
    "apgd_dlr": partial(apgd, loss="dlr"),
    "cw": cw,
    "ddn": ddn,
    "nattack": nattack,
    "one_draw": one_draw,
    "square": square,
    "transfer": transfer,
}
