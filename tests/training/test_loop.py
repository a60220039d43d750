import hashlib
import random
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from smoothinfer.training import loop
from smoothinfer.training.loop import _move_average
from tests.conftest import TINY


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def linear():
    """A network without batch statistics."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_training_learns_and_repeats(tmp_path, digits):
    recipe = recipe_from(TINY | {"epochs": 15, "loss": "natural", "noise": {}})
    history = si.train_run(recipe, digits, tmp_path / "one")
    assert history.epochs[-1]["loss"] < 0.7 * history.epochs[0]["loss"]
    si.train_run(recipe, digits, tmp_path / "two")
    files = [tmp_path / run / "last.safetensors" for run in ("one", "two")]
    assert hash_of(files[0]) == hash_of(files[1])
    other = recipe_from(TINY | {"epochs": 1, "loss": "natural", "seed": 1})
    si.train_run(other, digits, tmp_path / "three")
    assert hash_of(tmp_path / "three" / "last.safetensors") != hash_of(files[0])


def test_a_training_killed_at_random_moments_ends_with_the_same_weights(tmp_path, digits):
    """Three epochs in one go, and with kill -9 at 5 random moments."""
    overrides = ["epochs=3", "save_seconds=0", "validation.images=100", "attack.steps=4", "crop=1"]
    overrides += ["compile=off", "batch_size=16", "model.width=8"]
    command = [sys.executable, "-m", "smoothinfer", "train", "recipes/digits/cni-w.yaml"]
    command += ["--data", "digits", "--limit", "700", "--set", *overrides, "--out"]

    def start(name):
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, str(tmp_path / name)], **output)

    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read().decode()
    moments = random.Random(0)
    killed = 0
    while killed < 5:
        run = start("killed")
        while not (tmp_path / "killed" / "state.pt").exists():
            time.sleep(0.01)
            assert run.poll() is None, run.stderr.read().decode()
        before = hash_of(tmp_path / "killed" / "state.pt")
        while hash_of(tmp_path / "killed" / "state.pt") == before:
            time.sleep(0.005)  # wait until it goes on, then for a random moment
            if run.poll() is not None:
                break
        time.sleep(moments.uniform(0, 0.2))
        run.kill()
        run.wait()
        killed += 1
    last = start("killed")
    assert last.wait() == 0, last.stderr.read().decode()
    for name in ("last.safetensors", "best.safetensors"):
        assert hash_of(tmp_path / "whole" / name) == hash_of(tmp_path / "killed" / name)
    assert not list((tmp_path / "killed").glob("*.tmp"))


def test_a_training_asked_to_stop_saves_and_resumes(tmp_path, digits, monkeypatch):
    recipe = recipe_from(TINY | {"epochs": 1, "save_seconds": 1e9})
    si.train_run(recipe, digits, tmp_path / "whole")
    answers = iter([False, False, False, False, True, True])
    with monkeypatch.context() as patched:
        patched.setattr(loop, "stop_requested", lambda: next(answers))
        with pytest.raises(SystemExit) as end:
            si.train_run(recipe, digits, tmp_path / "stopped")
    assert end.value.code == 143
    state = torch.load(tmp_path / "stopped" / "state.pt", weights_only=True)
    assert state["history"]["step"] == 3
    si.train_run(recipe, digits, tmp_path / "stopped")
    files = [tmp_path / name / "last.safetensors" for name in ("whole", "stopped")]
    assert hash_of(files[0]) == hash_of(files[1])


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": name} for name in si.LOSSES),
        {"ema": 0.9},
        {"accumulate": 3},
        {"epoch_images": 200, "epochs": 5},
        {"loss": "trades", "attack": "kl_pgd(steps=2)"},
    ],
)
def test_every_training_resumes_exactly(changes, tmp_path, digits, monkeypatch):
    recipe = recipe_from(TINY | {"save_seconds": 0.0} | changes)
    si.train_run(recipe, digits, tmp_path / "whole")
    step, taken = loop._Run.step, []

    def interrupt(run):
        taken.append(1)
        if len(taken) in (4, 8):
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(loop._Run, "step", interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            si.train_run(recipe, digits, tmp_path / "cut")
    si.train_run(recipe, digits, tmp_path / "cut")
    assert len(taken) > 8
    for name in ("last.safetensors", "best.safetensors", "epochs.csv"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("whole", "cut"))
        if name == "epochs.csv":  # but for the times
            one, two = ([line.split(b",")[:-2] for line in x.splitlines()] for x in (one, two))
        assert one == two


def test_training_in_bfloat16(tmp_path, digits):
    history = si.train_run(recipe_from(TINY | {"precision": "bf16"}), digits, tmp_path)
    assert len(history.epochs) == 2
    model = si.load(tmp_path)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
def test_training_compiled_is_training(tmp_path, digits):
    """The first steps are those of the plain network, to rounding; about a minute."""
    losses = []
    for compiled in ("on", "off"):
        recipe = recipe_from(TINY | {"compile": compiled, "noise": {}, "epochs": 1})
        losses.append(si.train_run(recipe, digits, tmp_path / compiled).epochs[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_the_average_of_the_weights_is_what_is_saved(tmp_path, digits):
    plain, average = (
        si.train_run(recipe_from(TINY | {"ema": ema}), digits, tmp_path / str(ema))
        for ema in (0.0, 0.99)
    )
    assert plain.epochs[-1]["loss"] == average.epochs[-1]["loss"]  # the same training underneath
    one, two = (si.load(tmp_path / ema, "last").state_dict() for ema in ("0.0", "0.99"))
    name = next(name for name in one if name.endswith("0.weight"))
    assert not torch.equal(one[name], two[name])


def test_the_average_follows_early_weights_closely():
    average, now = [torch.zeros(2)], [torch.ones(2)]
    _move_average(0.999, average, now, 1)
    assert average[0].tolist() == pytest.approx([1 - 2 / 11] * 2)
    _move_average(0.5, average, now, 1000)
    assert average[0].tolist() == pytest.approx([1 - 1 / 11] * 2)


def test_parts_of_a_batch_add_up_to_it(tmp_path, digits):
    """Without batch statistics and noise, a batch in parts gives the same gradient."""
    changes = {
        "model": "tests.training.test_loop:linear",
        "noise": {},
        "loss": "natural",
        "epochs": 1,
    }
    weights = []
    for parts in (1, 4):
        recipe = recipe_from(TINY | changes | {"accumulate": parts})
        si.train_run(recipe, digits, tmp_path / str(parts))
        weights.append(si.load(tmp_path / str(parts), "last").state_dict())
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-5)


def test_patience_ends_a_training_that_does_not_improve(tmp_path, digits):
    recipe = recipe_from(TINY | {"lr": 0.0, "epochs": 9, "patience": 2, "noise": {}})
    history = si.train_run(recipe, digits, tmp_path)
    assert len(history.epochs) < 9
    again = si.train_run(recipe, digits, tmp_path)
    assert again.epochs == history.epochs


def test_short_epochs_draw_their_images_afresh(tmp_path, digits, monkeypatch):
    batch, seen = loop._Run._batch, []

    def watch(run, key):
        at = run.history.step % run.steps_per_epoch * 50
        images = batch(run, key)
        seen.append(set(run.order[at : at + 50].tolist()))
        return images

    monkeypatch.setattr(loop._Run, "_batch", watch)
    changes = {"epochs": 3, "epoch_images": 100, "batch_size": 50}
    history = si.train_run(recipe_from(TINY | changes), digits, tmp_path)
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert len(seen) == 6
    assert not seen[0] & seen[1]
    assert len(set.union(*seen)) > 150


def test_a_collapse_is_reported(tmp_path, digits, capsys, monkeypatch):
    scores = iter([0.5, 0.1])
    monkeypatch.setattr(
        "smoothinfer.workflows.train.validate",
        lambda *_, **__: {"clean": 0.9, "attacked": next(scores)},
    )
    si.train_run(recipe_from(TINY), digits, tmp_path)
    assert "catastrophic overfitting" in " ".join(capsys.readouterr().out.split())
