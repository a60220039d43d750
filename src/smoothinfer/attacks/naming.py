"""Attacks as text: ``"pgd"``, ``"epgd(draws=8)"``, the same in Python and on the command line."""

from collections.abc import Iterable, Mapping

from smoothinfer.attacks import ARGUMENTS, ATTACKS, Attack
from smoothinfer.attacks.given_examples import GivenExamples
from smoothinfer.config.components import Component
from smoothinfer.errors import InputError
from smoothinfer.types import CLEAN

Attacks = str | Attack | Iterable[str | Attack] | Mapping[str, str | Attack] | None


def attack_named(attack: str | Component) -> Attack:
    """Return the attack that a text describes.

    Raises:
        InputError: a name or an option is unknown or has the wrong type.

    >>> attack_named("pgd(steps=3, draws=8)").keywords
    {'steps': 3, 'draws': 8}
    """
    component = Component.of(attack)
    if component.name == "examples":
        return component.bind("attack", {"examples": GivenExamples.read}, ())()
    if component.name == "transfer" and not hasattr(component.options.get("source"), "forward"):
        raise InputError("transfer needs a module: functools.partial(si.transfer, source=model)")
    return component.bind("attack", ATTACKS, ARGUMENTS)


def attacks_by_name(attacks: Attacks) -> dict[str, Attack]:
    """Return each attack by the name that rows call it.

    Args:
        attacks: one or several, as texts or functions, or a mapping from names to these; ``None``
            and ``"none"`` stand for no attack.

    Raises:
        InputError: a text cannot be read, two have one name, or ``"none"`` stands beside others.

    >>> list(attacks_by_name(["pgd", "epgd(draws = 8)"])), attacks_by_name("none")
    (['pgd', 'epgd(draws=8)'], {})
    """
    if attacks is None or attacks == CLEAN:
        return {}
    pairs: list[tuple[str, str | Attack]]
    if isinstance(attacks, Mapping):
        pairs = list(attacks.items())
    elif isinstance(attacks, str) or callable(attacks):
        pairs = [(_name_of(attacks), attacks)]
    else:
        pairs = [(_name_of(each), each) for each in attacks]
    found: dict[str, Attack] = {}
    for name, attack in pairs:
        if name == CLEAN:
            raise InputError(f"no attack may be called {CLEAN!r}: that names the clean images")
        if name in found:
            raise InputError(f"two attacks are called {name!r}: give a mapping from names to them")
        found[name] = attack_named(attack) if isinstance(attack, str) else attack
    return found


def _name_of(attack: str | Attack) -> str:
    if isinstance(attack, str):
        return attack if attack == CLEAN else str(Component.of(attack))
    return getattr(attack, "__name__", "attack")
