"""Files written whole or not at all."""

import errno
import os

import pytest

import smoothinfer as si
from smoothinfer.runtime import files


def test_a_draft_of_another_machine_is_left_alone(tmp_path):
    mine, other = (tmp_path / f".a.json.999999.{host}.tmp" for host in (files._HOST, "elsewhere"))
    for draft in (mine, other):
        draft.write_text("x")
    files.write_json(tmp_path / "a.json", {})
    assert not mine.exists()
    assert other.exists()


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=rf"cannot write {path}: No space left"):
            files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(si.InputError, match=r"no such file: .*a\.json"):
        files.read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(si.InputError, match=r"a\.json is not valid JSON"):
        files.read_json(tmp_path / "a.json")
