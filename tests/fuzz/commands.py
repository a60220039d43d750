"""Bad commands from a seed, of all commands and all their arguments: the parsers tell them."""

import argparse
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.cli import COMMANDS, _parser
from tests.fuzz.places import bad_paths, write_bad_recipe
from tests.fuzz.pools import CALLS, NO_NUMBERS, NUMBERS, OBJECTS, WORDS, calls, overrides


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
        self.paths = bad_paths(scratch / "paths", world)

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
            "recipe": (self.world / recipe, self._recipe()),
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

    def _recipe(self) -> Path:
        path = self.scratch / f"recipe{next(self.numbers)}.yaml"
        write_bad_recipe(self.chance, path)
        return path

    def bad_value(self, action: argparse.Action) -> tuple[str, bool]:
        """A value for ``action``, and whether it is surely a bad one."""
        if action.choices is not None:
            return self.pick(WORDS), True
        if action.type is not None:  # all of them read numbers
            word = self.pick((*NUMBERS, *NO_NUMBERS))
            return word, word in NO_NUMBERS
        return self.pick(self.pick(self._pools(action.dest))), False

    def _pools(self, dest: str) -> list[Any]:
        if dest == "set":
            return [list(overrides(self.chance))]
        if dest == "recipe":
            return [WORDS, self.paths, [str(self._recipe())]]
        if dest == "model":
            return [WORDS, self.paths, OBJECTS, OBJECTS]
        if dest in _CALLED:
            return [
                WORDS,
                CALLS,
                CALLS,
                OBJECTS,
                list(calls(self.chance)),
                list(calls(self.chance)),
            ]
        return [WORDS, CALLS, self.paths, OBJECTS]


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
    "limit": (1, 2, 4), "samples": (1, 2, 20), "selection": (2, 10),
    "attack": ("fgsm", "pgd", "none"),
    "sigma": ("0.1", "0", "8/255"), "radius": ("0.1", "8/255"), "rule": ("soft", "prediction"),
    "seed": (0, -1, 7), "alpha": (0.01,), "delta": (0.01,), "skip": (1, 2), "set": ("seed=1",),
    "shard": ("0/1", "1/2"), "title": ("a title",),
}  # fmt: skip
