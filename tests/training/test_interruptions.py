"""Trainings that are killed or asked to stop: they go on, and end with the same weights."""

import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.recipes import recipe_from
from smoothinfer.runtime.signals import Stop
from smoothinfer.training import loop
from smoothinfer.training.state import read_identity
from smoothinfer.workflows import train as workflow
from tests.conftest import TINY

LONG = TINY | {"epochs": 2, "save_seconds": 1e9, "batch_size": 32, "attack": "pgd(steps=4)"}


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def steps_of(folder):
    state = torch.load(folder / "state.pt", weights_only=True)
    return state["history"]["step"], len(state["history"]["epochs"])


def train_long(folder):
    torch.set_num_threads(1)
    recipe = folder.parent / "long.yaml"
    recipe.write_text(json.dumps(LONG))
    command = ["train", str(recipe), "--data", "digits", "--limit", "500", "--out", str(folder)]
    sys.exit(main(command))


@pytest.fixture(scope="module")
def children():
    """Processes that need no time for imports."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sklearn.datasets", "tests.training.test_interruptions"])
    first = context.Process(target=int)
    first.start()
    first.join()
    return context


@pytest.fixture(scope="module")
def whole(children, tmp_path_factory):
    """A training in one go, and the seconds that it took."""
    folder, begun = tmp_path_factory.mktemp("whole") / "run", time.perf_counter()
    child = children.Process(target=train_long, args=(folder,))
    child.start()
    child.join()
    assert child.exitcode == 0
    return folder, time.perf_counter() - begun


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_training_stopped_at_random_moments_ends_with_the_same_weights(
    number, children, whole, tmp_path
):
    stop_at_random(number, children, whole, tmp_path, times=3)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_training_stopped_at_twenty_moments_ends_with_the_same_weights(
    number, children, whole, tmp_path
):
    stop_at_random(number, children, whole, tmp_path, times=20)


def stop_at_random(number, children, whole, folder, times):
    """Signals at seeded moments; a signal that can be caught ends with its status."""
    (reference, longest), chance, stopped, tries = whole, random.Random(0), 0, 0
    while stopped < times:
        out = folder / f"{tries}" / "run"
        out.parent.mkdir()
        while True:
            child = children.Process(target=train_long, args=(out,))
            child.start()
            child.join(chance.uniform(0.05, longest) if stopped < times else None)
            if not child.is_alive():
                break
            os.kill(child.pid, number)
            child.join(20)
            caught = -number if number == signal.SIGKILL else 128 + number
            assert child.exitcode in (caught, 0)
            stopped += 1
        assert child.exitcode == 0
        for name in ("last.safetensors", "best.safetensors"):
            assert hash_of(reference / name) == hash_of(out / name)
        assert not list(out.rglob("*.tmp"))
        tries += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_lets_the_step_in_hand_end_and_saves_it(number, tmp_path, digits, monkeypatch):
    recipe = recipe_from(LONG | {"epochs": 1})
    si.train_run(recipe, digits, tmp_path / "whole")
    step, before = loop.Run.step, signal.getsignal(number)

    def interrupt(run):
        if run.history.step == 2:
            os.kill(os.getpid(), number)
        return step(run)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Run, "step", interrupt)
        with pytest.raises(
            Stop, match=r"after step 3 of 12, .*state\.pt is saved; the same"
        ) as stop:
            si.train_run(recipe, digits, tmp_path / "stopped")
    assert stop.value.status == 128 + number
    assert signal.getsignal(number) is before  # a library call leaves handlers as they were
    assert steps_of(tmp_path / "stopped") == (3, 0)
    si.train_run(recipe, digits, tmp_path / "stopped")
    files = [tmp_path / name / "last.safetensors" for name in ("whole", "stopped")]
    assert hash_of(files[0]) == hash_of(files[1])


def test_a_validation_does_not_wait_for_its_end_and_is_repeated(tmp_path, digits, monkeypatch):
    recipe = recipe_from(LONG | {"epochs": 1})
    si.train_run(recipe, digits, tmp_path / "whole")

    def endless(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    with monkeypatch.context() as patched:
        patched.setattr(workflow, "validate", endless)
        with pytest.raises(Stop, match="SIGTERM: stopped after step 12 of 12"):
            si.train_run(recipe, digits, tmp_path / "stopped")
    assert steps_of(tmp_path / "stopped") == (12, 0)
    history = si.train_run(recipe, digits, tmp_path / "stopped")
    assert [row["epoch"] for row in history.epochs] == [1]
    files = [tmp_path / name / "last.safetensors" for name in ("whole", "stopped")]
    assert hash_of(files[0]) == hash_of(files[1])


def test_the_command_says_what_happened_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    (tmp_path / "long.yaml").write_text(json.dumps(LONG))
    command = ["train", str(tmp_path / "long.yaml"), "--data", "digits", "--limit", "300"]
    step = loop.Run.step

    def interrupt(run):
        os.kill(os.getpid(), signal.SIGINT)
        return step(run)

    monkeypatch.setattr(loop.Run, "step", interrupt)
    assert main([*command, "--out", str(tmp_path / "run")]) == 130
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("SIGINT: stopped after step 1 of 12")
    assert said.endswith("the same command goes on from there")
    assert set(read_identity(tmp_path / "run" / "state.pt")) == {"recipe", "data", "code"}
