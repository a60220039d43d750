"""Several processes train as one."""

import subprocess
import sys

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from tests.conftest import ACCELERATE, TORCHRUN, launched


def csv_of(folder):
    lines = [line.split(",") for line in (folder / "epochs.csv").read_text().splitlines()]
    return [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]


def train_tiny(out, *changes):
    command = [
        "train",
        "digits/cni-w.yaml",
        "--data",
        "digits",
        "--limit",
        "300",
        "--out",
        str(out),
    ]
    overrides = ["validation.held_out=50", "validation.images=50", "attack.steps=2", "epochs=2"]
    return [
        *command,
        "--out",
        str(out),
        "--set",
        *overrides,
        "noise.inputs=uniform(sigma=0.05)",
        *changes,
    ]


AT_ACTIVATIONS = ["noise.weights=null", "noise.activations=cni(rank=2)"]


@pytest.mark.parametrize("changes", [[], AT_ACTIVATIONS], ids=["weights", "activations"])
def test_two_processes_train_to_the_curve_of_one(tmp_path, changes):
    """Batch statistics, all noise, how strong it is and random starts are the whole batch's."""
    assert main(train_tiny(tmp_path / "one", *changes)) == 0
    printed = launched(TORCHRUN, train_tiny(tmp_path / "two", *changes))
    one, two = csv_of(tmp_path / "one"), csv_of(tmp_path / "two")
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-4)
        assert together["noise"] == pytest.approx(alone["noise"], abs=1e-4)
        assert together["clean"] == pytest.approx(alone["clean"], abs=0.02)
    weights = [si.load(tmp_path / name, "last").state_dict() for name in ("one", "two")]
    for name, weight in weights[0].items():
        assert torch.allclose(weight.float(), weights[1][name].float(), atol=1e-3), name
    assert printed.count("epoch 1 ") == 1  # one process speaks for both


@pytest.mark.slow
def test_two_processes_resume_and_stop_early_together(tmp_path):
    """Under accelerate launch too; about a minute."""
    changes = ["noise.weights=null", "save_seconds=0", "epochs=4"]
    launched(TORCHRUN, train_tiny(tmp_path / "whole", *changes))
    launcher = [sys.executable, "-m", *TORCHRUN, "-m", "smoothinfer"]
    run = subprocess.Popen([*launcher, *train_tiny(tmp_path / "cut", *changes)])
    while not (tmp_path / "cut" / "epochs.csv").exists():
        assert run.poll() is None
    run.terminate()
    run.wait(timeout=60)
    launched(TORCHRUN, train_tiny(tmp_path / "cut", *changes))
    one, two = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == two
    stopping = ["lr=0.0", "patience=1", "epochs=9"]
    assert "stopped early" in launched(ACCELERATE, train_tiny(tmp_path / "early", *stopping))
    assert len(csv_of(tmp_path / "early")) < 9


def test_a_batch_must_be_shared_out_evenly(tmp_path):
    with pytest.raises(AssertionError, match="cannot be shared evenly among 2 processes"):
        launched(TORCHRUN, train_tiny(tmp_path, "batch_size=33"))
