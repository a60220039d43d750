"""Short names of attacks, for tables."""

from collections.abc import Iterable

from smoothinfer.config.components import Component
from smoothinfer.errors import InputError
from smoothinfer.evaluation.judgement import AUTHORS
from smoothinfer.reporting.tables import cell_text
from smoothinfer.types import CLEAN

_LETTERS = ("pgd", "epgd", "apgd", "fgsm", "cw", "ddn")


def short_attack(attack: str) -> str:
    """Return the name of an attack with its steps and draws, EPGD-7x8; other options after it.

    >>> short_attack("epgd(steps=7, draws=8)"), short_attack("multitargeted(draws=8)")
    ('EPGD-7x8', 'multitargeted x8')
    >>> short_attack("standard(budget='quick')"), short_attack("pgd(loss='margin', steps=40)")
    ('standard (quick)', 'PGD-40 (margin)')
    """
    if attack in (CLEAN, AUTHORS):
        return "clean" if attack == CLEAN else "one draw"
    try:
        component = Component.of(attack)
    except InputError:  # a name that a user gave
        return attack
    options = dict(component.options)
    steps, draws = (options.pop(name, None) for name in ("steps", "draws"))
    options.pop("step_size", None)
    name = component.name.upper() if component.name in _LETTERS else component.name
    name = name if steps is None else f"{name}-{steps}"
    name = name if draws in (None, 1) else f"{name}{'x' if steps else ' x'}{draws}"
    others = [
        value.rpartition("/")[2] if isinstance(value, str) else f"{option}={cell_text(value)}"
        for option, value in options.items()
    ]
    return f"{name} ({', '.join(others)})" if others else name


def short_attacks(attacks: Iterable[str]) -> dict[str, str]:
    """Return the short name of each attack; the whole one where two would be called the same.

    >>> list(short_attacks(["pgd(steps=7)", "pgd(steps=7, draws=1)", "apgd"]).values())
    ['pgd(steps=7)', 'pgd(steps=7, draws=1)', 'APGD']
    """
    short = {attack: short_attack(attack) for attack in attacks}
    names = list(short.values())
    return {a: name if names.count(name) == 1 else a for a, name in short.items()}
