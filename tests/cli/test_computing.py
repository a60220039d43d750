"""``--device`` and ``--batch-size``: taken by every command that computes, refused when wrong."""

import os

import pytest
import torch

import smoothinfer as si
from smoothinfer.attacks.kept_stages import keep_stages
from smoothinfer.cli import COMMANDS, main
from smoothinfer.numerics.precision import BATCH_SIZE, batch_size, tile_for
from smoothinfer.runtime.processes import DEVICE, Processes

LINE = ["evaluate", "tests.conftest:noisy_line", "--data", "digits", "--limit", "20"]
LINE += ["--samples", "16", "--attack", "pgd(steps=2)", "--radius", "0.1"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_compute_take_a_device(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    found = "--device" in capsys.readouterr().out
    none = ("report", "publish", "models", "recipes", "attacks", "data")
    assert found == (command not in none)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "cuda:77"], "--device: no device 'cuda:77' here: there are cpu"),
        (["--device", "nonsense"], "--device: no device 'nonsense'"),
        (["--batch-size", "0"], "--batch-size must be a whole number of at least 1, not '0'"),
        (["--batch-size", "many"], "--batch-size must be"),
        (["--batch-size", "-3"], "--batch-size must be"),
    ],
)
def test_wrong_ones_are_refused_before_any_work(options, message, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([*LINE, *options, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()
    assert DEVICE not in os.environ
    assert BATCH_SIZE not in os.environ


def test_a_command_computes_as_told(tmp_path, monkeypatch):
    seen = []

    def note(*_):
        seen.append((Processes().device, batch_size()))
        return 0

    monkeypatch.setattr("smoothinfer.workflows.evaluate.run", note)
    main([*LINE, "--device", "cpu", "--batch-size", "7", "--out", str(tmp_path)])
    assert seen == [(torch.device("cpu"), 7)]
    assert batch_size() is None


def test_batches_do_not_change_votes_and_attacks_run_in_them(monkeypatch):
    model, data = si.load("tests.conftest:noisy_line"), si.load_data("digits", "test", 10)
    smooth = si.SmoothedClassifier(model, 20, seed=0)
    whole = smooth.predict(data.images).counts
    monkeypatch.setenv(BATCH_SIZE, "4")
    assert tile_for(data.images) == 4
    assert torch.equal(smooth.predict(data.images).counts, whole)
    sizes = set()
    model.register_forward_hook(lambda _, given, __: sizes.add(len(given[0])))
    points = si.pgd(model, data.images, data.labels, si.Linf(0.1), steps=2)
    assert sizes == {4, 2}
    assert points.shape == data.images.shape


class Memory:
    """Where an attack keeps its stages."""

    state = None

    def load(self):
        return self.state

    def save(self, state):
        self.state = state


def test_what_one_batch_has_kept_is_not_taken_for_another(monkeypatch):
    """Points of the first batch would lie far from the images of the second."""
    model, data = si.load("tests.conftest:noisy_line"), si.load_data("digits", "test", 8)
    monkeypatch.setenv(BATCH_SIZE, "4")
    ball = si.Linf(0.1)
    with keep_stages(Memory()):
        points = si.ATTACKS["standard"](model, data.images, data.labels, ball, budget="quick")
    assert ball.distance(points, data.images).max() <= 0.1 + 1e-6
