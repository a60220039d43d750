"""Bad words, values and calls, from which commands and files are made."""

import dataclasses
import inspect
import json
import random
from collections.abc import Iterator
from typing import Any

from smoothinfer.attacks import ATTACKS
from smoothinfer.networks import MODELS
from smoothinfer.noise import NOISES
from smoothinfer.numerics.balls import BALLS
from smoothinfer.recipes import Recipe
from smoothinfer.sweep_recipe import SweepRecipe
from smoothinfer.training.losses import LOSSES
from smoothinfer.training.schedules import SCHEDULES
from tests.fuzz import factories

NUMBERS = ("-1", "0", "1e999", "nan", "inf", "-inf", str(10**30), "0.5", "1e-400", "8/0", "8/255")
NO_NUMBERS = (
    "a",
    "",
    " ",
    "²",
    "½",
    "٣x",
    "1,5",
    "0x1g",
    "--1",
    "1 2",
    "[1]",
    "True",
    "1e",
    "\x1b",
)
WORDS = (
    *NUMBERS, *NO_NUMBERS, "None", "null", "~", "{", "[1", "a\nb", "\x1b[31mred", "x" * 300,
    "y" * 5000, "\udc80", "..", ".", "/", "/dev/null", "-", "a=b", ":", "::", "%s%n", "é" * 120,
    "$(touch marker)", "!!python/name:os.system", "\x00", "a\x00b", "NUL", "\u202eabc",
)  # fmt: skip
CALLS = (
    "pgd(", "pgd)", "pgd()", "pgd(steps=)", "pgd(7)", "cni(rank=-1)", "ball=linf", "ranks:",
    "ranks:a", "ranks:nan", "ranks:1,", "ranks:-1,0", "transfer(source=3)", "a:b:c", ":x", "x:",
    "os:system", "os:getcwd", "os:_exit", "sys:exit", "builtins:exit", "pgd(steps=1, steps=2)",
    "pgd(**{})", "pgd(*[1])", "pgd(steps=1/0)", "pgd(steps=2**99)", "pgd(steps=[1])", "pgd(x)",
    "pgd(steps=lambda: 1)", "pgd(steps=__import__('os').system('true'))", "pgd\x00", "pgd(a\nb)",
    "pgd(steps='7')", "pgd(steps=7.0)", "pgd(steps=True)", "pgd(steps=None)", "pgd(model=1)",
    "pgd(images=1)", "pgd(ball=1)", "pgd(generator=1)", "pgd(loss=7)", "pgd(loss='nobody')",
    "pgd(step_size=nan)", "pgd(step_size=1e999)", "pgd(precision='fp16')", "pgd(targets=3)",
    "(((((((((", "pgd(" + "(" * 500, "pgd(steps=" + "9" * 5000 + ")", "transfer", "transfer(a=1)",
    "transfer(source='tests.fuzz.factories:raises')", "transfer(source='nobody', steps=2)",
    "transfer(source='tests.conftest:line', attack='nobody')", "transfer(attack=transfer)",
    "transfer(source='tests.conftest:line', attack=7)", "tests.conftest:line", "none(steps=2)",
    "transfer(source='tests.conftest:line', sigma='a')", "tests.fuzz.factories:raises",
    "transfer(source='tests.conftest:line', sigma=-1)", "os:getcwd(path=1)", "json:loads(s=2)",
)  # fmt: skip
OBJECTS = [f"tests.fuzz.factories:{name}" for name in vars(factories) if not name.startswith("_")]
_REGISTRIES = (ATTACKS, MODELS, NOISES, BALLS, LOSSES, SCHEDULES)
_LITERALS = ("-1", "0", "1e999", "'a'", "None", "[]", "{}", "True", "10**9", "10**30", "0.5", "''")
VALUES = (
    None, True, -1, 0, 1, 10**30, 1e308, float("nan"), float("inf"), "", " ", "a", "²", [], {},
    [[]], [None], {"a": 1}, {"name": "a"}, {"name": 3}, {"name": ["pgd"]}, "pgd(", "os:system",
    [1, "a"], "x" * 1000, "1e999", {"name": "pgd", "steps": {"a": 1}}, -(2**63) - 1, 10**9, "8/0",
)  # fmt: skip


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """The mappings and lists in ``value``, each with one of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(pairs):
        yield value, key
        if isinstance(each, dict | list):
            yield from places_in(each)


def calls(chance: random.Random) -> Iterator[str]:
    """Calls of the parts of the package with a bad option."""
    registry = chance.choice(_REGISTRIES)
    name = chance.choice(list(registry))
    for option in [*inspect.signature(registry[name]).parameters, "nobody"]:
        yield f"{name}({option}={chance.choice(_LITERALS)})"


def overrides(chance: random.Random) -> Iterator[str]:
    """Changes of recipes: nonsense, and keys with bad values."""
    yield chance.choice(
        ("a", "=", "a=", ".=1", "..=1", "=1", "a.b.c.d=1", "seed.a=1", "{=}", "\x00=1")
    )
    yield chance.choice(
        ("model.name.x=1", "seed=!!python/name:os.system", "seed=&a [*a]", "ema=[1")
    )
    for _ in range(6):
        field = chance.choice(dataclasses.fields(chance.choice((Recipe, SweepRecipe)))).name
        inside = chance.choice(
            ("", "", "", ".name", ".steps", ".radius", ".images", ".weights", ".")
        )
        value = chance.choice(VALUES)
        spelt = json.dumps(value) if chance.random() < 0.7 else chance.choice(WORDS)
        yield f"{field}{inside}={spelt}"
