import importlib
import json
import subprocess
import sys

import pytest

from smoothinfer.cli import COMMANDS, main

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
        (["demo", "--seed", "one"], "invalid int value: 'one'"),
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
        (["evaluate", "no-model", "--data", "digits", "--out", "x"], "no model 'no-model'"),
        (["train", "nothing.yaml", "--data", "digits", "--out", "x"], "digits/cni-w.yaml"),
        (["train", "digits/cni-w.yaml", "--data", "./nowhere", "--out", "x"], "no such folder"),
        (
            ["train", "digits/cni-w.yaml", "--data", "digits", "--out", "x", "--set", "epoch=1"],
            "epochs",
        ),
        (
            ["train", "digits/cni-w.yaml", "--data", "digits", "--out", "x", "--set", "loss=trade"],
            "adversarial",
        ),
    ],
)
def test_errors_name_the_thing_and_the_choices(arguments, message, capsys):
    assert main(arguments) == 2
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.startswith("error: ")
    assert message in printed
    assert "Traceback" not in printed


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

    monkeypatch.setattr("smoothinfer.workflows.models.run", fail)
    assert main(["models"]) == 3
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.replace("\n", "").isprintable()


def test_a_warning_is_one_line_that_controls_nothing(tmp_path):
    program = "import sys, warnings\nimport smoothinfer.workflows.models as models\n"
    program += f"models.run = lambda options: warnings.warn({ESCAPES + chr(10) + 'b'!r})\n"
    program += "from smoothinfer.cli import main\nmain(['models'])"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == "warning: a\\x1b]0;owned\\x07 \\u202e b\n"
