"""Drafts of killed, live and distant writers."""

import os
import signal
import subprocess
import sys
import time

import smoothinfer.runtime.drafts as drafts
from smoothinfer.runtime.drafts import create_draft, remove_all_dead_drafts, remove_dead_drafts
from smoothinfer.runtime.files import write_json

DEAD = 4_000_000  # more than the largest number of a process


def draft_of(folder, pid=DEAD, host=drafts._HOST, age=0.0):
    path = folder / f".draft.{host}.{pid}.0123456789abcdef.tmp"
    path.write_text("x")
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_only_drafts_that_nobody_will_finish_are_removed(tmp_path):
    dead, old = draft_of(tmp_path), draft_of(tmp_path, host="elsewhere", pid=2, age=2 * 86400)
    alive, distant = draft_of(tmp_path, pid=os.getppid()), draft_of(tmp_path, host="elsewhere")
    other = tmp_path / ".draft.of-a-novel.tmp"
    other.write_text("x")
    remove_dead_drafts(tmp_path)
    assert not dead.exists()
    assert not old.exists()
    assert alive.exists()
    assert distant.exists()
    assert other.exists()


def test_a_draft_of_a_file_that_is_never_written_again_is_removed(tmp_path):
    (tmp_path / "rows").mkdir()
    dead = draft_of(tmp_path / "rows")
    remove_all_dead_drafts(tmp_path)
    assert not dead.exists()
    beside = draft_of(tmp_path)
    write_json(tmp_path / "a.json", {})
    assert not beside.exists()


def test_a_killed_writer_leaves_nothing_for_long(tmp_path):
    program = (
        "import sys, time; from smoothinfer.runtime.files import write_whole\n"
        "def slow(file):\n"
        "    file.write(b'half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
        "write_whole(sys.argv[1], slow)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "a")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "writing\n"
    (draft,) = tmp_path.iterdir()
    remove_dead_drafts(tmp_path)
    assert draft.exists()  # its writer is alive
    run.send_signal(signal.SIGKILL)
    run.wait()
    remove_dead_drafts(tmp_path)
    assert not list(tmp_path.iterdir())


def test_nobody_can_lay_a_link_where_a_draft_will_be(tmp_path):
    names = set()
    for _ in range(20):
        descriptor, draft = create_draft(tmp_path)
        os.close(descriptor)
        names.add(draft.name)
        assert len(draft.name.split(".")[-2]) == 32  # 128 random bits
    assert len(names) == 20
    assert drafts._FLAGS & os.O_EXCL
    assert drafts._FLAGS & os.O_NOFOLLOW
