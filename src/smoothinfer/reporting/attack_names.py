"""Short names of attacks, for the heads of tables."""

from smoothinfer.config.components import Component
from smoothinfer.errors import InputError
from smoothinfer.evaluation.judgement import AUTHORS
from smoothinfer.types import CLEAN

_LETTERS = ("pgd", "epgd", "apgd", "fgsm", "cw", "ddn")


def short_attack(attack: str) -> str:
    """Return the name of an attack with its steps and draws: EPGD-7x8.

    >>> short_attack("epgd(steps=7, draws=8)"), short_attack("multitargeted(draws=8)")
    ('EPGD-7x8', 'multitargeted x8')
    """
    if attack in (CLEAN, AUTHORS):
        return "clean" if attack == CLEAN else "one draw"
    try:
        component = Component.of(attack)
    except InputError:  # a name that a user gave
        return attack
    steps, draws = (component.options.get(name) for name in ("steps", "draws"))
    name = component.name.upper() if component.name in _LETTERS else component.name
    name = name if steps is None else f"{name}-{steps}"
    return name if draws in (None, 1) else f"{name}{'x' if steps else ' x'}{draws}"
