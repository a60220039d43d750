import importlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from smoothinfer.cli import COMMANDS, main

NOISY = "tests.conftest:noisy_line"

# Imports that take seconds: help and an import of the package must not wait for them.
SLOW_IMPORTS = ["matplotlib", "pyarrow", "scipy.stats", "datasets", "huggingface_hub", "accelerate"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_of_its_name(name, capsys):
    module = importlib.import_module(f"smoothinfer.workflows.{name}")
    assert callable(module.add_arguments)
    assert callable(module.run)
    with pytest.raises(SystemExit) as status:
        main([name, "--help"])
    assert status.value.code == 0
    printed = capsys.readouterr().out
    assert f"usage: smoothinfer {name}" in printed
    assert COMMANDS[name].split()[0] in printed


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as status:
        main(["--help"])
    assert status.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: smoothinfer" in printed
    lines = {line.split()[0] for line in printed.splitlines() if line.startswith("    ")}
    assert set(COMMANDS) <= lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["trian"], "invalid choice: 'trian'"),
        (["demo", "--sed", "1"], "unrecognized arguments: --sed"),
        (["models", "--fold", "x"], "unrecognized arguments: --fold"),  # nor half an option
        (["demo", "--seed", "one"], "must be a whole number, not 'one'"),
        (["demo", "--seed", str(10**30)], "seed must be at most 9223372036854775807"),
        (["train", "digits/cni-w.yaml", "--data", "digits"], "--out"),
    ],
)
def test_a_command_line_that_cannot_be_read_ends_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as status:
        main(arguments)
    assert status.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "statement",
    [
        "import smoothinfer",
        "from smoothinfer.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass",
    ],
    ids=["import", "help"],
)
def test_importing_and_help_do_not_wait_for_slow_imports(statement):
    program = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.splitlines()[-1])
    assert "smoothinfer" in modules
    assert not set(SLOW_IMPORTS) & set(modules)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "no-model", "--data", "digits"], "no model 'no-model'"),
        (["train", "nothing.yaml", "--data", "digits"], "choose one of"),
        (["train", "digits/cni-w.yaml", "--data", "./nowhere"], "no such folder"),
        (["train", "digits/cni-w.yaml", "--data", "digits", "--set", "epoch=1"], "epochs"),
        (["train", "digits/cni-w.yaml", "--data", "digits", "--set", "loss=trade"], "adversarial"),
        (
            ["train", "digits/cni-w.yaml", "--data", "digits", "--set", f"seed={10**30}"],
            "seed must",
        ),
        (["sweep", "sweeps/digits.yaml", "--shard", "²/4"], "--shard must be I/N"),
        (["sweep", "sweeps/digits.yaml", "--shard", "4/4"], "--shard must be I/N"),
        (["sweep", "sweeps/digits.yaml", "--shard", "0/0"], "--shard must be I/N"),
        (["certify", NOISY, "--data", "digits", "--skip", "-1"], "skip must be at least 1, not -1"),
        (["certify", NOISY, "--data", "digits", "--predict", "--skip", "0"], "skip must be at"),
        (["audit", NOISY, "--data", "digits", "--limit", "0"], "limit must be at least 1"),
    ],
)
def test_errors_name_the_thing_and_the_choices(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.startswith("error: ")
    assert message in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "out").exists()  # nothing was begun


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE must be a whole number of at least 1, not 'abc'"),
        ({"WORLD_SIZE": "²"}, "WORLD_SIZE must be"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK is not set"),
        ({"WORLD_SIZE": "1", "LOCAL_RANK": "x"}, "LOCAL_RANK must be"),
        (
            dict.fromkeys(("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), "2"),
            "RANK is 2, but WORLD_SIZE is 2",
        ),
    ],
)
def test_an_environment_that_no_launcher_made_is_named(
    environment, message, tmp_path, monkeypatch, capsys
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("smoothinfer.runtime.processes.os._exit", sys.exit)
    arguments = ["evaluate", NOISY, "--data", "digits", "--out", str(tmp_path / "out")]
    try:
        status = main(arguments)
    except SystemExit as leaving:
        status = leaving.code
    assert status == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert message in said


def test_a_fault_of_the_program_is_told_in_two_lines(tmp_path, monkeypatch, capsys):
    def fail(options):
        raise ZeroDivisionError("nothing to divide by")

    monkeypatch.setattr("smoothinfer.cli.failures.is_named_code", lambda file: False)
    monkeypatch.setattr("smoothinfer.workflows.models.run", fail)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["models"]) == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first == "internal error: ZeroDivisionError: nothing to divide by"
    assert "please report it" in second
    (kept,) = tmp_path.iterdir()
    assert str(kept) in second
    assert "in fail" in kept.read_text()
    monkeypatch.setenv("SMOOTHINFER_TRACEBACK", "1")
    assert main(["models"]) == 3
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def smoothinfer(*arguments, **options):
    command = [sys.executable, "-m", "smoothinfer", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)


def test_an_output_that_nobody_reads_ends_it_in_silence():
    reading, writing = os.pipe()
    os.close(reading)
    run = smoothinfer("models", stdout=writing)
    os.close(writing)
    assert run.stderr.read() == ""
    assert run.wait() == 141


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_during_imports_ends_it_in_silence(number):
    chance = random.Random(0)
    for _ in range(3):
        run = smoothinfer("models", stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.3, 0.9))
        run.send_signal(number)
        said = run.stderr.read()
        assert run.wait() in (128 + number, 0)
        assert "Traceback" not in said
        assert "Error" not in said


ESCAPES = "a\x1b]0;owned\x07\r\u202e"


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", f"{ESCAPES}\nerror: all is well", "--data", "digits", "--out", "x"],
        ["report", f"./{ESCAPES}\nb", "--out", "x"],
        ["models", "--folder", "a", f"--{ESCAPES}\nb"],
        ["train", f"{ESCAPES}[/b]\n.yaml", "--data", "digits", "--out", "x"],
    ],
    ids=["model", "folder", "argument", "recipe"],
)
def test_an_error_is_one_line_that_controls_nothing(arguments, capsys):
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    printed = capsys.readouterr().err
    assert printed.replace("\n", "").isprintable()
    errors = [line for line in printed.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert r"\x1b" in errors[0]


def test_an_error_of_the_program_shows_no_control_characters(monkeypatch, capsys):
    def fail(options):
        raise RuntimeError(ESCAPES)

    monkeypatch.setattr("smoothinfer.cli.failures.is_named_code", lambda file: False)
    monkeypatch.setattr("smoothinfer.workflows.models.run", fail)
    assert main(["models"]) == 3
    printed = capsys.readouterr().err
    assert "internal error" in printed
    assert printed.replace("\n", "").isprintable()


def test_a_warning_is_one_line_that_controls_nothing(tmp_path):
    program = "import sys, warnings\nimport smoothinfer.workflows.models as models\n"
    program += f"models.run = lambda options: warnings.warn({ESCAPES + chr(10) + 'b'!r})\n"
    program += "from smoothinfer.cli import main\nmain(['models'])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "warning: a\\x1b]0;owned\\x07 \\u202e b\n"


@pytest.mark.parametrize("module", ["datasets", "yaml", "torch", "json"])
def test_modules_in_the_current_folder_do_not_run_unless_asked_for(module, tmp_path):
    (tmp_path / f"{module}.py").write_text("open('ran', 'w')\nraise SystemExit(77)\n")
    (tmp_path / "mine.py").write_text("import torch\n\ndef net():\n    return torch.nn.Flatten()\n")
    run = smoothinfer("models", stdout=subprocess.DEVNULL, cwd=tmp_path)
    assert run.communicate()[1] == ""
    assert run.returncode == 0
    command = ["evaluate", "mine:net", "--data", "digits", "--limit", "2", "--attack", "none"]
    run = smoothinfer(*command, "--out", "out", stdout=subprocess.DEVNULL, cwd=tmp_path)
    assert "64 classes apart" in run.communicate()[1]
    assert not (tmp_path / "ran").exists()
