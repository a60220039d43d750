"""Locks on folders."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import smoothinfer as si
from smoothinfer.runtime import locks
from smoothinfer.runtime.locks import hold_folder, wait_for_folder

PROGRAM = (
    "import sys, time; from smoothinfer.runtime.locks import hold_folder\n"
    "with hold_folder(sys.argv[1], 'trained'):\n"
    "    print('held', flush=True); time.sleep(60)"
)


def test_a_folder_is_held_by_one_process_and_by_none_that_was_killed(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "held\n"
    message = rf"{tmp_path} is being trained by process {run.pid} on .*: choose another --out"
    with pytest.raises(si.InputError, match=message), hold_folder(tmp_path, "trained"):
        pass
    run.send_signal(signal.SIGKILL)
    run.wait()
    with hold_folder(tmp_path, "trained"):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def none(*_, **__):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(locks, "_lock", none)
    message = "cannot be locked .No locks available"
    with pytest.warns(UserWarning, match=message), hold_folder(tmp_path, "trained"):
        pass
    with wait_for_folder(tmp_path):
        pass


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("other")
    (tmp_path / ".lock").symlink_to(tmp_path / "other")
    message = r"cannot open the lock .*\.lock"
    with pytest.raises(OSError, match=message), hold_folder(tmp_path, "trained"):
        pass
    assert (tmp_path / "other").read_text() == "other"


def test_one_after_the_other_enters_a_block(tmp_path):
    def count(_):
        with wait_for_folder(tmp_path):
            before = int((tmp_path / "count").read_text())
            time.sleep(0.002)
            (tmp_path / "count").write_text(str(before + 1))

    (tmp_path / "count").write_text("0")
    with ThreadPoolExecutor(4) as threads:  # a lock belongs to an open file, not to a process
        list(threads.map(count, range(40)))
    assert (tmp_path / "count").read_text() == "40"
