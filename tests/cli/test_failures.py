"""Whose fault a failure is."""

import pytest
import torch
from torch import nn

from smoothinfer.cli import main


class FailsLater(nn.Module):
    """A network that fails on batches of several images, which no first look finds."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(64, 10)

    def forward(self, images):
        if len(images) > 2:
            raise RuntimeError("too many\nimages")
        return self.line(images.flatten(1))


def fails_later():
    return FailsLater().eval()


def test_code_of_the_user_that_fails_at_work_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    command = [
        "evaluate",
        "tests.cli.test_failures:fails_later",
        "--data",
        "digits",
        "--limit",
        "9",
    ]
    command += ["--attack", "none", "--samples", "1", "--out", str(tmp_path)]
    assert main(command) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "your code failed in" in said
    assert "in forward: RuntimeError: too many images" in said
    monkeypatch.setenv("SMOOTHINFER_TRACEBACK", "1")
    assert main(command) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_fault_of_ours_beside_a_users_model_stays_ours(tmp_path, monkeypatch, capsys):
    def fail(*args, **options):
        return torch.zeros(2) @ torch.zeros(3)  # raised below a frame of the package

    monkeypatch.setattr("smoothinfer.workflows.evaluate.run_sweep", fail)
    monkeypatch.setattr("smoothinfer.cli.failures.is_named_code", lambda file: False)
    command = ["evaluate", "tests.conftest:line", "--data", "digits", "--out", str(tmp_path)]
    assert main(command) == 3
    assert "fault of smoothinfer" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["x" * 100_000, "a" * 300])
def test_a_message_has_an_end(word, tmp_path, capsys):
    assert main(["evaluate", word, "--data", "digits", "--out", str(tmp_path)]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert len(said) < 2100
