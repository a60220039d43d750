"""Files written whole or not at all."""

import errno
import io
import json
import os
import random
import stat
import subprocess

import numpy as np
import pyarrow as pa
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.torch import save_file
from torch import nn

import smoothinfer as si
from smoothinfer.checkpoints import save_with_card
from smoothinfer.evaluation.costs import Cost
from smoothinfer.evaluation.example_cache import ExampleCache
from smoothinfer.evaluation.store import Store, write_table
from smoothinfer.reporting.figures import save_figure
from smoothinfer.runtime import files
from smoothinfer.training.history import History
from smoothinfer.training.state import save_state

PIXELS = torch.rand(40, 1, 32, 32)


def state(path):
    net = nn.Linear(128, 128)
    save_state(path, net, torch.optim.SGD(net.parameters()), History(), None, {})


def picture(path):
    figure = Figure()
    figure.figimage(np.random.rand(200, 200))
    save_figure(figure, path)


WRITERS = {
    "state.pt": state,
    "a.json": lambda path: files.write_json(path, {"numbers": list(range(20_000))}),
    "a.txt": lambda path: files.write_text(path, "x" * 100_000),
    "a.safetensors": lambda path: save_with_card(path, {"pixels": PIXELS}, {}),
    "a.png": picture,
    "a.npy": lambda path: files.write_whole(path, lambda file: np.save(file, PIXELS.numpy())),
    "a.parquet": lambda path: write_table(pa.table({"x": np.random.rand(9_000)}), path),
    "a.csv": lambda path: History(epochs=[{"loss": k / 7} for k in range(9_000)]).write_table(path),
    "shard": lambda path: Store(path).write("unit", pa.table({"x": np.random.rand(9_000)})),
    "examples": lambda path: ExampleCache(path).put("key", PIXELS, Cost()),
}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_the_old_file_and_names_it(name, tmp_path, monkeypatch):
    write = WRITERS[name]
    write(tmp_path / name)
    before = {path: text for path, text in contents(tmp_path).items() if path.name != ".lock"}

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        if name == "shard":
            for path in before:
                path.unlink()
        with pytest.raises(OSError, match=rf"cannot write {tmp_path}/{name}.*: No space left"):
            write(tmp_path / name)
    after = {path: text for path, text in contents(tmp_path).items() if path.name != ".lock"}
    assert after == ({} if name == "shard" else before)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
@pytest.mark.parametrize("name", [name for name in WRITERS if name != "shard"])
def test_a_disk_that_is_really_full_leaves_no_half_file(name, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no mounts here")
    try:
        with pytest.raises(OSError, match=f"cannot write {disk / name}") as fault:
            WRITERS[name](disk / name)
        assert len(str(fault.value).splitlines()) == 1
        assert not contents(disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("name", ["a.json", "a.npy"])
def test_places_that_take_no_file_are_named(name, tmp_path):
    write = WRITERS[name]
    (tmp_path / "file").write_text("x")
    (tmp_path / name).mkdir()
    for place, reason in (
        (tmp_path / "file" / name, "exists|Not a directory"),
        (tmp_path / name, "Is a directory"),
        (tmp_path / f"{'x' * 255}{name}", "too long"),
    ):
        with pytest.raises(OSError, match=rf"cannot write {place}: .*({reason})"):
            write(place)
    assert sorted(os.listdir(tmp_path)) == [name, "file"]


def test_a_link_is_replaced_and_never_written_through(tmp_path):
    (tmp_path / "other").write_text("other")
    (tmp_path / "a.json").symlink_to(tmp_path / "other")
    files.write_json(tmp_path / "a.json", {"new": 1})
    assert (tmp_path / "other").read_text() == "other"
    assert not (tmp_path / "a.json").is_symlink()
    assert files.read_json(tmp_path / "a.json") == {"new": 1}


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_file(mask, mode, tmp_path):
    before = os.umask(mask)
    try:
        files.write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(si.InputError, match=r"no such file: .*a\.json"):
        files.read_json(tmp_path / "a.json")
    for content in (b"{", b"\xff\xfe", b"[" * 100_000, b""):
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(si.InputError, match=r"a\.json is not valid JSON.*: delete it"):
            files.read_json(tmp_path / "a.json", "delete it")
    with pytest.raises(si.InputError, match="cannot be read: Is a directory"):
        files.read_json(tmp_path)


def test_every_flipped_bit_of_a_json_file_is_found(tmp_path):
    path, chance = tmp_path / "a.json", random.Random(0)
    files.write_json(path, {"figures": [{"value": k / 7, "n": k} for k in range(9)], "name": "x"})
    content = path.read_bytes()
    for place in range(len(content) - 1):
        broken = bytearray(content)
        broken[place] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(broken))
        with pytest.raises(si.InputError, match=r"a\.json is (damaged|not valid JSON)"):
            files.read_json(path)


def test_json_without_a_checksum_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"by": "hand"}))
    assert files.read_json(tmp_path / "a.json") == {"by": "hand"}
    files.write_json(tmp_path / "a.json", {2: "two", 10: "ten", "list": (1, 2)})
    assert files.read_json(tmp_path / "a.json") == {"2": "two", "10": "ten", "list": [1, 2]}


def test_what_others_read_stays_readable(tmp_path):
    WRITERS["state.pt"](tmp_path / "state.pt")
    assert "model" in torch.load(tmp_path / "state.pt", weights_only=True)
    buffer = io.BytesIO((tmp_path / "state.pt").read_bytes())
    assert "optimizer" in torch.load(buffer, weights_only=True)
    save_file({"x": PIXELS}, tmp_path / "a.safetensors")
    with pytest.raises(si.InputError, match="is damaged"):  # it is no file of examples
        si.load_examples(tmp_path / "a.safetensors")


def test_what_never_ends_or_fits_nowhere_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(si.InputError, match=f"{name} is not a plain file"):
            files.read_content(tmp_path / name)
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(2**42)  # without blocks on the disk
    with pytest.raises(si.InputError, match="too large"):
        files.read_content(tmp_path / "huge")


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_no_json(value, tmp_path):
    path = tmp_path / "a.json"
    path.write_text(f'{{"a": {value}, "checksum": "sha256:0"}}')
    with pytest.raises(si.InputError, match=r"a\.json is (not valid JSON|damaged)"):
        files.read_json(path)
