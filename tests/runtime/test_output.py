"""Folders that commands write to."""

import errno
import os

import pytest

import smoothinfer as si
from smoothinfer.cli import COMMANDS, main
from smoothinfer.runtime import output
from smoothinfer.runtime.output import check_output

# The shortest command line of each command with --out, which fails only in its work.
LINES = {
    "demo": ["demo"],
    "train": ["train", "x", "--data", "x"],
    "harden": ["harden", "x", "--model", "x", "--data", "x"],
    "evaluate": ["evaluate", "x", "--data", "x"],
    "attack": ["attack", "x", "--data", "x"],
    "calibrate": ["calibrate", "x", "--data", "x"],
    "standard": ["standard", "x", "--data", "x"],
    "audit": ["audit", "x", "--data", "x"],
    "leaderboard": ["leaderboard", "x"],
    "certify": ["certify", "x", "--data", "x"],
    "sweep": ["sweep", "x"],
    "reproduce": ["reproduce", "x"],
    "report": ["report", "x"],
    "picture": ["picture", "cost", "x", "--data", "x"],
    "publish": ["publish", "x", "--name", "x"],
    "data": ["data", "x"],
}
FILE = {"export": ["export", "x"]}  # into a file, whose folder is checked


@pytest.mark.parametrize("name", LINES)
def test_every_command_checks_its_folder_before_anything_else(name, tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / ("x" * 300)):
        assert main([*LINES[name], "--out", str(place)]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert said.startswith(f"error: --out {place} ")
        assert "choose another folder" in said


def test_every_command_with_a_folder_is_tried_above():
    assert set(COMMANDS) - set(LINES) - set(FILE) == {"models", "recipes", "attacks", "serve"}


def test_a_command_into_a_file_checks_the_folder_of_it(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    assert main([*FILE["export"], "--out", str(tmp_path / "file" / "net.onnx")]) == 2
    assert f"error: --out {tmp_path / 'file'} is or lies in a file" in capsys.readouterr().err


def test_a_path_that_grows_too_long_is_refused(tmp_path):
    deep = tmp_path
    while len(str(deep)) < 3_700:
        deep = deep / ("d" * 100)
    check_output(deep)
    deeper = deep / ("d" * 150)
    with pytest.raises(si.InputError, match=r"cannot be written .File name too long.: choose"):
        check_output(deeper)


def test_a_file_in_the_place_of_a_folder_inside_is_found_early(tmp_path):
    (tmp_path / "rows").write_text("x")
    with pytest.raises(si.InputError, match=f"--out {tmp_path}/rows is or lies in a file"):
        check_output(tmp_path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_takes_no_file_is_refused(number, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(output, "create_draft", refuse)
    with pytest.raises(
        si.InputError, match=f"--out {tmp_path} cannot be written .{os.strerror(number)}"
    ):
        check_output(tmp_path)


def test_a_folder_that_is_fine_stays_as_it_is(tmp_path):
    check_output(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
    assert main(["report", "x", "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()  # a refused command leaves nothing behind
    assert main(["report", "x", "--out", str(tmp_path / "new")]) == 2
    assert (tmp_path / "new").exists()  # it was there before
