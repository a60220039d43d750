"""Bad commands from a seed, of all commands and all their arguments: the parsers tell them."""

import argparse
import dataclasses
import inspect
import itertools
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smoothinfer.attacks import ATTACKS
from smoothinfer.checkpoints import shipped
from smoothinfer.cli import COMMANDS, _parser
from smoothinfer.networks import MODELS
from smoothinfer.noise import NOISES
from smoothinfer.numerics.balls import BALLS
from smoothinfer.recipes import Recipe
from smoothinfer.training.losses import LOSSES
from smoothinfer.training.schedules import SCHEDULES
from smoothinfer.workflows.sweep import SweepRecipe
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


@dataclass
class Case:
    """A command line; ``refused`` says that it must be, ``environment`` what it runs in."""

    words: list[str]
    refused: bool = False
    environment: dict[str, str] = field(default_factory=dict)


def actions_of(name: str) -> list[argparse.Action]:
    """The arguments of the command ``name``, without ``--help``."""
    parser, _ = _parser([name])
    (branches,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return [a for a in branches.choices[name]._actions if not isinstance(a, argparse._HelpAction)]


class Commands:
    """An endless source of bad commands.

    Args:
        seed: two sources with one seed are the same.
        world: folder of good files; see `make_world`.
        scratch: folder for bad ones and for results.
    """

    def __init__(self, seed: int, world: Path, scratch: Path) -> None:
        self.chance, self.world, self.scratch = random.Random(seed), world, scratch
        self.numbers = itertools.count()
        self.actions = {name: actions_of(name) for name in COMMANDS}
        self.paths = self._bad_paths()
        self.recipes = sorted(shipped("recipes", "digits/cni-w.yaml").parents[1].rglob("*.yaml"))

    def __iter__(self) -> Iterator[Case]:
        names = list(COMMANDS)
        while True:
            self.chance.shuffle(names)
            yield from map(self.case, names)

    def case(self, name: str) -> Case:
        """A command that is good but for one to three faults."""
        case = Case([])
        parts = self._good(name)
        faults = self.chance.choices(_FAULTS, k=self.chance.choice((1, 1, 1, 2, 3)))
        for fault in faults:
            case.refused = fault(self, name, parts, case) and len(faults) == 1
        case.words = [name, *(word for _, words in parts for word in words)]
        return case

    def pick(self, values: Any) -> Any:
        """One of ``values``."""
        return self.chance.choice(list(values))

    def _good(self, name: str) -> list[tuple[argparse.Action, list[str]]]:
        """The required arguments, those that keep the work small, and some others."""
        parts = []
        for action in self.actions[name]:
            wanted = action.required or action.dest in _SMALL or self.chance.random() < 0.12
            if wanted:
                parts.append((action, self._spelt(action, self._good_value(name, action))))
        return parts

    def _spelt(self, action: argparse.Action, values: list[str]) -> list[str]:
        names = [action.option_strings[0]] if action.option_strings else []
        return names if action.nargs == 0 else [*names, *values]

    def _good_value(self, name: str, action: argparse.Action) -> list[str]:
        if action.choices is not None:
            return [str(self.pick(action.choices))]
        if action.dest == "out":
            return [str(self.scratch / f"out{next(self.numbers)}")]
        if action.dest in ("recipe", "name", "split", "folders"):
            return [str(self.pick(self._names(name)[action.dest]))]
        fallback = ("1", "2") if action.type else ("a", "1")
        return [str(self.pick(_GOOD.get(action.dest, self._places().get(action.dest, fallback))))]

    def _names(self, name: str) -> dict[str, tuple[Any, ...]]:
        recipe = "sweep.yaml" if name == "sweep" else "tiny.yaml"
        return {
            "recipe": (self.world / recipe, self.scratch / self._bad_recipe()),
            "name": ("net",) if name == "publish" else ("table1", "figure2", "appendix-a"),
            "split": ("test", "train", "validation", "source:test"),
            "folders": (self.world / "evaluate", self.world / "audit", self.world / "certify"),
        }

    def _places(self) -> dict[str, tuple[Any, ...]]:
        world = self.world
        return {
            "model": (world / "run", "tests.conftest:line", world / "published/net.safetensors"),
            "data": ("digits", world / "data.npz", world / "pictures", world / "parquet"),
            "folder": (world / "published",),
            "results": (world / "evaluate",),
            "merge": (world / "sweep",),
            "reuse": (world / "sweep",),
            "runs": (world,),
        }

    def _bad_paths(self) -> list[str]:
        """Files, folders, links in a circle, pipes and names that no file should have."""
        here = self.scratch / "paths"
        here.mkdir(parents=True)
        (here / "file").write_text("no recipe, no data, no model")
        (here / "empty").touch()
        (here / "folder").mkdir()
        os.symlink(here / "circle", here / "circle")
        os.symlink(here / "nowhere", here / "dangling")
        os.mkfifo(here / "pipe")
        (here / "no entry").mkdir(mode=0)
        for ending in ("npz", "safetensors", "yaml", "json", "parquet", "png"):
            (here / f"empty.{ending}").touch()
            (here / f"folder.{ending}").mkdir()
            os.symlink(here / f"circle.{ending}", here / f"circle.{ending}")
            os.mkfifo(here / f"pipe.{ending}")
        inside = [str(path) for path in here.iterdir()]
        strange = ("a\nb", "\x1b[31m", "z" * 300, "\udcff", "\x00", "file/inside", "a" * 200 + "/b")
        world = [str(path) for path in self.world.rglob("*") if "pictures/" not in str(path)]
        return [*inside, *(str(here / each) for each in strange), *world, str(here / "no entry/x")]

    def _bad_recipe(self) -> str:
        """Write a shipped recipe with a change somewhere; return the name of its file."""
        path = self.pick(self.recipes)
        content = yaml.safe_load(path.read_text())
        if "extends" in content:
            content["extends"] = str(path.parent / content["extends"])
        places = list(places_in(content))
        for _ in range(self.chance.choice((1, 1, 2))):
            holder, key = self.pick(places)
            if self.chance.random() < 0.2 and isinstance(holder, dict):
                holder.pop(key, None)
            elif self.chance.random() < 0.2 and isinstance(holder, dict):
                holder[self.pick(("", "x", 3, None, True, "name", "extends"))] = self.pick(VALUES)
            elif key in holder if isinstance(holder, dict) else key < len(holder):
                holder[key] = self.pick(VALUES)
        name = f"recipe{next(self.numbers)}.yaml"
        (self.scratch / name).write_text(yaml.safe_dump(content, allow_unicode=False))
        return name

    def bad_value(self, action: argparse.Action) -> tuple[str, bool]:
        """A value for ``action``, and whether it is surely a bad one."""
        if action.choices is not None:
            return self.pick(WORDS), True
        if action.type in (int, float) or getattr(action.type, "__name__", "") == "_seed":
            word = self.pick((*NUMBERS, *NO_NUMBERS))
            return word, word in NO_NUMBERS
        return self.pick(self.pick(self._pools(action.dest))), False

    def _pools(self, dest: str) -> list[Any]:
        if dest == "set":
            return [list(_overrides(self))]
        if dest == "recipe":
            return [WORDS, self.paths, [str(self.scratch / self._bad_recipe())]]
        if dest == "model":
            return [WORDS, self.paths, OBJECTS, OBJECTS]
        if dest in _CALLED:
            return [WORDS, CALLS, CALLS, OBJECTS, list(_calls(self)), list(_calls(self))]
        return [WORDS, CALLS, self.paths, OBJECTS]


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """The mappings and lists in ``value``, each with one of its keys."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in list(pairs):
        yield value, key
        if isinstance(each, dict | list):
            yield from places_in(each)


def _calls(source: Commands) -> Iterator[str]:
    """Calls of the parts of the package with a bad option."""
    registry = source.pick(_REGISTRIES)
    name = source.pick(registry)
    for option in [*inspect.signature(registry[name]).parameters, "nobody"]:
        yield f"{name}({option}={source.pick(_LITERALS)})"


def _overrides(source: Commands) -> Iterator[str]:
    """Changes of recipes: nonsense, and keys with bad values."""
    yield source.pick(
        ("a", "=", "a=", ".=1", "..=1", "=1", "a.b.c.d=1", "seed.a=1", "{=}", "\x00=1")
    )
    yield source.pick(("model.name.x=1", "seed=!!python/name:os.system", "seed=&a [*a]", "ema=[1"))
    for _ in range(6):
        field = source.pick(dataclasses.fields(source.pick((Recipe, SweepRecipe)))).name
        inside = source.pick(("", "", "", ".name", ".steps", ".radius", ".images", ".weights", "."))
        value = source.pick(VALUES)
        spelt = json.dumps(value) if source.chance.random() < 0.7 else source.pick(WORDS)
        yield f"{field}{inside}={spelt}"


def _drop(source: Commands, name: str, parts: Any, case: Case) -> bool:
    part = source.pick(parts) if parts else None
    if part is not None:
        parts.remove(part)
    return part is not None and part[0].required


def _double(source: Commands, name: str, parts: Any, case: Case) -> bool:
    if parts:
        part = source.pick(parts)
        parts.append((part[0], list(part[1])))
    return False


def _replace(source: Commands, name: str, parts: Any, case: Case) -> bool:
    """Give an argument, there already or not, a bad value."""
    actions = [action for action in source.actions[name] if action.nargs != 0]
    weights = [4 if action.dest in _RICH else 1 for action in actions]
    (action,) = source.chance.choices(actions, weights)
    value, refused = source.bad_value(action)
    words = [value] if source.chance.random() < 0.8 or not action.nargs else [value, value]
    if action.option_strings and value.startswith("-") and len(words) == 1:
        words, joined = [], f"{action.option_strings[0]}={value}"
        spelt = [joined]
    else:
        spelt = source._spelt(action, words)
    at = next((i for i, part in enumerate(parts) if part[0] is action), None)
    if at is None:
        parts.append((action, spelt))
    else:
        parts[at] = (action, spelt)
    return refused


def _misspell(source: Commands, name: str, parts: Any, case: Case) -> bool:
    """Spell an option almost right."""
    options = [part for part in parts if part[0].option_strings]
    if not options:
        return False
    part = source.pick(options)
    word, at = part[1][0], source.chance.randrange(2, len(part[1][0]))
    changes = (
        word[:-1],
        word[:at] + word[at + 1 :],
        word + "s",
        word.upper(),
        word.replace("--", "-", 1),
    )
    part[1][0] = source.pick(changes)
    return False


def _stray(source: Commands, name: str, parts: Any, case: Case) -> bool:
    """Add words that no command knows."""
    word = source.pick((*WORDS, "--nobody", "--nobody=1", "-x", "--", *COMMANDS))
    parts.insert(source.chance.randrange(len(parts) + 1), (argparse.Action([], "stray"), [word]))
    return False


def _without_value(source: Commands, name: str, parts: Any, case: Case) -> bool:
    options = [part for part in parts if part[0].option_strings and part[0].nargs != 0]
    if options:
        part = source.pick(options)
        del part[1][1:]
    return False


def _surround(source: Commands, name: str, parts: Any, case: Case) -> bool:
    """Set an environment variable to nonsense."""
    case.environment[source.pick(_VARIABLES)] = source.pick(
        [each for each in (*WORDS, *source.paths[:20]) if "\x00" not in each]
    )
    return False


_FAULTS = (
    *[_replace] * 12, _drop, _double, _double, _misspell, _stray, _without_value, _surround,
)  # fmt: skip
_CALLED = ("attack", "rule", "sigma", "radius", "units", "stop", "norm")
_RICH = ("model", "data", "attack", "recipe", "set", "folders", "rule")
_SMALL = ("limit", "samples", "attack", "selection")
_VARIABLES = (
    "SMOOTHINFER_PRECISION", "SMOOTHINFER_CACHE", "SMOOTHINFER_TRACEBACK", "XDG_CACHE_HOME", "HOME",
    "TMPDIR", "WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "COLUMNS", "NO_COLOR", "TERM",
    "OMP_NUM_THREADS", "MPLBACKEND", "LC_ALL",
)  # fmt: skip
_GOOD: dict[str, tuple[Any, ...]] = {
    "limit": (1, 2, 4), "samples": (1, 2, 20), "selection": (2, 10), "attack": ("fgsm", "pgd", "none"),
    "sigma": ("0.1", "0", "8/255"), "radius": ("0.1", "8/255"), "rule": ("soft", "prediction"),
    "seed": (0, -1, 7), "alpha": (0.01,), "delta": (0.01,), "skip": (1, 2), "set": ("seed=1",),
    "shard": ("0/1", "1/2"), "title": ("a title",),
}  # fmt: skip
