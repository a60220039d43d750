"""A thousand bad commands and a thousand damaged files: one line each, and nothing run or wrong.

The short form runs always; the long one with ``pytest -m slow tests/fuzz``, from other seeds with
``SMOOTHINFER_FUZZ_SEED=100``.
"""

import contextlib
import itertools
import os
import shutil
import subprocess
import sys

import pytest

from smoothinfer.cli import COMMANDS
from tests.fuzz.commands import Commands, actions_of
from tests.fuzz.damage import Damages
from tests.fuzz.judge import Outcome, faults_of, run_command
from tests.fuzz.readers import READERS

FIRST = int(os.environ.get("SMOOTHINFER_FUZZ_SEED", "1"))  # of the long form
SEEDS = range(FIRST, FIRST + 10)


def check_commands(seed, count, world, place, clock):
    """Run ``count`` commands of ``seed``; nothing is wrong with any."""
    wrong, refused = [], 0
    cases = Commands(seed, world, place / f"scratch{seed}")
    for number, case in enumerate(itertools.islice(cases, count)):
        with pytest.MonkeyPatch.context() as patch:
            for name, value in case.environment.items():
                patch.setenv(name, value)
            found = run_command(case.words, clock)
        refused += found.status == 2
        if faults := faults_of(found, case.refused):
            wrong.append((number, faults, case.words, case.environment, found.err[-2000:]))
    assert not wrong, "\n\n".join(map(str, wrong))
    return refused


def test_bad_commands_end_in_one_line(world, place, clock):
    assert check_commands(0, 26, world, place, clock) > 13


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_thousand_bad_commands_end_in_one_line(seed, world, place, clock):
    assert check_commands(seed, 100, world, place, clock) > 60


def test_every_argument_of_every_command_is_tried(world, place):
    tried = set()
    for case in itertools.islice(Commands(0, world, place / "all"), 80 * len(COMMANDS)):
        tried |= {(case.words[0], word.partition("=")[0]) for word in case.words[1:]}
    for name in COMMANDS:
        named = [action.option_strings[0] for action in actions_of(name) if action.option_strings]
        assert {(name, option) for option in named} <= tried


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (["evaluate", "tests.fuzz.factories:raises", "--data", "digits", "--out", "out"], {}),
        (["models", "--folder", "nowhere"], {"LC_ALL": "nonsense", "COLUMNS": "a"}),
    ],
    ids=["factory", "environment"],
)
def test_a_process_of_its_own_says_one_line_too(words, environment, tmp_path):
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), os.getcwd())))
    done = subprocess.run(
        [sys.executable, "-m", "smoothinfer", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )
    found = Outcome(done.returncode, done.stdout, done.stderr, 0.0, began=False)
    assert not faults_of(found, refused=True), found


class Worlds:
    """A world that is made whole again before each case, and the results of its commands."""

    def __init__(self, world, clock):
        self.root, self.clock = world, clock
        self.good = shutil.copytree(world, world.with_name("good"))
        self.results = {}

    def run(self, name):
        return run_command(READERS[name].words(self.root), self.clock)

    def restore(self):
        if self.root.is_dir():
            shutil.rmtree(self.root)
        shutil.copytree(self.good, self.root)

    def result_of(self, name):
        """The result of a command on whole files, which repeats."""
        if name not in self.results:
            self.restore()
            found = self.run(name)
            assert found.status == 0, found
            self.results[name] = READERS[name].result(self.root, found.out)
        return self.results[name]


@pytest.fixture(scope="module")
def worlds(world, clock):
    return Worlds(world, clock)


def check_damages(seed, count, worlds, place):
    """Damage ``count`` files; nothing is wrong with what commands make of them."""
    wrong, marker, here = [], place / "marker", place / f"here{seed}"
    here.mkdir()
    source = Damages(seed, worlds.root, marker)
    for number in range(count):
        worlds.restore()
        damage = source.one()
        with contextlib.chdir(here):
            found = worlds.run(damage.reader)
        faults = faults_of(found)
        if marker.exists() or any(here.iterdir()):
            faults.append("code was run")
        if found.status == 0 and damage.checked:
            result = READERS[damage.reader].result(worlds.root, found.out)
            if result != worlds.result_of(damage.reader):
                faults.append("another result")
        if faults:
            wrong.append((number, faults, damage, found.err[-2000:]))
    worlds.restore()
    assert not wrong, "\n\n".join(map(str, wrong))


def test_damaged_files_are_refused_or_do_no_harm(worlds, place):
    check_damages(0, 24, worlds, place)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_thousand_damaged_files_do_no_harm(seed, worlds, place):
    check_damages(seed, 100, worlds, place)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_the_results_that_damage_is_compared_with_repeat(name, worlds):
    first = worlds.result_of(name)
    worlds.restore()
    found = worlds.run(name)
    assert READERS[name].result(worlds.root, found.out) == first
