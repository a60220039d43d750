"""The folder of a stranger: only its own plain files are read, and damage is an error."""

import json
import os
import random
import re
from hashlib import sha256

import pyarrow as pa
import pytest

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.evaluation.store import write_table
from smoothinfer.reporting import report
from smoothinfer.reporting.collect import collect
from tests.reporting.strangers import FILES, keep_drawing, write_folder, write_json

SECRET = "the secret of somebody"
SVG = f'<svg xmlns="http://www.w3.org/2000/svg"><script>alert("{SECRET}")</script></svg>'


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "secret").write_text(SECRET)
    return write_folder(tmp_path / "results")


@pytest.fixture
def without_figures(monkeypatch):
    """A report draws no figures of numbers, which takes long."""
    monkeypatch.setattr(report, "draw_curves", lambda *drawn: None)


def png(folder):
    return (folder / "curve.png").read_bytes()


def link(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(folder.parent / "secret.png")


def in_figures(folder, content):
    (folder / "figures" / "2.png").write_bytes(content)


# What is planted, and the name that the folder's experiment.json gives to it.
PLANTED = {
    "absolute": (lambda folder: None, "/etc/passwd"),
    "above": (lambda folder: None, "../../secret"),
    "beside": (lambda folder: None, "../curve.png"),
    "folder": (lambda folder: None, "."),
    "empty": (lambda folder: None, ""),
    "missing": (lambda folder: None, "3.png"),
    "long": (lambda folder: None, "a" * 300 + ".png"),
    "null": (lambda folder: None, "a\0.png"),
    "text": (lambda folder: in_figures(folder, SECRET.encode()), "2.png"),
    "svg": (lambda folder: in_figures(folder, SVG.encode()), "2.png"),
    "magic": (lambda folder: in_figures(folder, b"\x89PNG\r\n\x1a\n" + SECRET.encode()), "2.png"),
    "cut": (lambda folder: in_figures(folder, png(folder)[:-20]), "2.png"),
    "huge": (lambda folder: in_figures(folder, png(folder) + bytes(9_000_000)), "2.png"),
    "figure link": (lambda folder: link(folder, "figures/2.png"), "2.png"),
    "drawing link": (lambda folder: link(folder, "other.png"), "1.png"),
    "sheet link": (lambda folder: link(folder, "examples/other.png"), "1.png"),
    "pipe": (lambda folder: os.mkfifo(folder / "figures" / "2.png"), "2.png"),
    "directory": (lambda folder: (folder / "figures" / "2.png").mkdir(), "2.png"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_is_no_picture_of_the_folder_is_left_out_with_a_line(
    kind, folder, tmp_path, without_figures
):
    # A link leads to what would be a good picture, were it in the folder.
    (tmp_path / "secret.png").write_bytes(png(folder))
    plant, name = PLANTED[kind]
    plant(folder)
    write_json(folder / "experiment.json", FILES["experiment"] | {"figures": ["1.png", name]})
    with pytest.warns(UserWarning, match="left out of the report: ") as warned:
        page = si.write_report([folder], tmp_path / "out")
    assert len(warned) == 1
    assert "\n" not in str(warned[0].message)
    text = page.read_text()
    assert text.count("<img ") == 3  # its own ones
    assert "Left out of results: " in text
    assert SECRET not in text
    copies = [path.read_bytes() for path in (tmp_path / "out" / "figures").iterdir()]
    assert len(copies) == 3
    assert all(copy.startswith(b"\x89PNG") for copy in copies)


MEMBERS = [*(f"{name}.json" for name in FILES), "table.parquet"]


@pytest.mark.parametrize("name", MEMBERS)
@pytest.mark.parametrize("kind", ["link", "circle", "pipe", "directory"])
def test_a_result_that_is_no_file_of_the_folder_is_refused(name, kind, folder, tmp_path):
    path = folder / name
    if name == "curve.json":
        keep_drawing(folder)
    path.rename(tmp_path / name)
    if kind == "link":
        path.symlink_to(tmp_path / name)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path)
        if name != "summary.json":
            return  # a link to nowhere is no file: the rest is reported
    with pytest.raises(si.InputError, match=re.escape(str(path))) as caught:
        collect(folder)
    assert "\n" not in str(caught.value)


def test_a_link_within_the_folder_is_followed(folder):
    (folder / "audit.json").rename(folder / "first.json")
    (folder / "audit.json").symlink_to("first.json")
    assert collect(folder).audit["verdict"] == FILES["audit"]["verdict"]


def test_a_part_that_lies_elsewhere_is_refused(folder, tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one").symlink_to(folder)
    with pytest.raises(si.InputError, match="leads out of"):
        si.write_report([tmp_path / "parts"], tmp_path / "out")


def test_sheets_of_one_name_are_all_shown(folder, tmp_path, without_figures):
    for place in ("examples/sigma=0", "examples/sigma=0.1"):
        (folder / place).mkdir()
        (folder / place / "fgsm.png").write_bytes(png(folder))
    si.write_report([folder], tmp_path / "out")
    assert len(list((tmp_path / "out" / "figures").glob("results-fgsm*.png"))) == 3


WRONG = (None, [], {}, "", "NaN", -1, 10**400, 1e400, float("nan"), True, [[[]]], {"a": 1}, 0.5)


def deleted(content, chance):
    """``content`` without one of its keys, anywhere."""
    holder = chance.choice([each for each in nested(content) if each])
    holder.pop(chance.choice(list(holder)))
    return json.dumps(content).encode()


def nested(content):
    if isinstance(content, dict):
        yield content
    if isinstance(content, dict | list):
        for each in content.values() if isinstance(content, dict) else content:
            yield from nested(each)


def retyped(content, chance):
    """``content`` with another value in one place."""
    holder = chance.choice([each for each in nested(content) if each])
    holder[chance.choice(list(holder))] = chance.choice(WRONG)
    return json.dumps(content).encode()


def replaced(content, chance):
    return json.dumps(chance.choice(WRONG)).encode()


def cut(content, chance):
    text = json.dumps(content).encode()
    return text[: chance.randrange(len(text))]


def flipped(content, chance):
    return flip(json.dumps(content).encode(), chance)


def flip(content, chance):
    found = bytearray(content)
    found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def deep(content, chance):
    depth = chance.choice([100, 100_000])
    return b"[" * depth + b"]" * depth


MUTATIONS = (deleted, retyped, replaced, cut, flipped, deep)


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda each: each.__name__)
@pytest.mark.parametrize("name", FILES)
def test_damaged_json_is_reported_or_refused_in_a_line(
    name, mutate, folder, tmp_path, without_figures
):
    path, refused = folder / f"{name}.json", 0
    if name == "curve":
        keep_drawing(folder)
    good = path.read_bytes()
    for seed in range(2 if mutate is deep else 15):
        path.write_bytes(mutate(json.loads(good), random.Random(seed)))
        refused += is_refused(folder, path, tmp_path)
    assert refused or mutate in (deleted, retyped, flipped)


def is_refused(folder, path, home):
    """Whether a report is refused; then by an error of one line that names the file."""
    try:
        si.write_report([folder], home / "out")
    except si.InputError as error:
        message = str(error)
    else:
        return False
    assert str(path) in message or str(folder / "table.parquet") in message
    assert len(message.splitlines()) == 1
    return True


@pytest.mark.parametrize("described", [False, True], ids=["other digest", "own digest"])
def test_damaged_rows_are_reported_or_refused_in_a_line(
    described, folder, tmp_path, without_figures
):
    path, refused = folder / "table.parquet", 0
    good = path.read_bytes()
    for seed in range(40):
        chance = random.Random(seed)
        content = flip(good, chance) if seed % 2 else good[: chance.randrange(len(good))]
        path.write_bytes(content)
        if described:
            redescribe(folder)
        refused += is_refused(folder, path, tmp_path)
    assert refused == 40 or described


def redescribe(folder):
    summary = json.loads((folder / "summary.json").read_text())
    summary["table"] = sha256((folder / "table.parquet").read_bytes()).hexdigest()
    write_json(folder / "summary.json", summary)


def with_column(rows, name, values):
    rows = rows.drop_columns([name]) if name in rows.column_names else rows
    return rows.append_column(name, pa.array(values))


N = 8
ROWS = {
    "no rows": lambda rows: rows.slice(0, 0),
    "no column": lambda rows: rows.drop_columns(["hits"]),
    "twice": lambda rows: rows.append_column("sigma", rows["sigma"]),
    "taken": lambda rows: with_column(rows, "clean", ["a"] * N),
    "aggregate": lambda rows: with_column(rows, "hits_mean", [1.0] * N),
    "nested": lambda rows: with_column(rows, "odd", [[1]] * N),
    "bytes": lambda rows: with_column(rows, "odd", [b"\xff"] * N),
    "missing": lambda rows: with_column(rows, "attack", [None] + ["none"] * (N - 1)),
    "infinite": lambda rows: with_column(rows, "sigma", [float("inf")] * N),
    "not a number": lambda rows: with_column(rows, "forwards", [float("nan")] * N),
    "too many hits": lambda rows: with_column(rows, "hits", [9] * N),
    "too many used": lambda rows: with_column(rows, "used", [9] * N),
    "no samples": lambda rows: with_column(rows, "samples", [0] * N),
    "share": lambda rows: with_column(rows, "share", [1.5] * N),
    "negative": lambda rows: with_column(rows, "label", [-1] * N),
    "words": lambda rows: with_column(rows, "sigma", ["0.1"] * N),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_no_evaluation_writes_are_refused(kind, folder):
    rows = ROWS[kind](collect(folder).rows)
    write_table(rows, folder / "table.parquet")
    redescribe(folder)
    with pytest.raises(si.InputError, match=r"table\.parquet") as caught:
        collect(folder)
    assert len(str(caught.value).splitlines()) == 1


def test_the_command_ends_with_a_line_and_writes_nothing(folder, tmp_path, capsys):
    write_json(folder / "audit.json", FILES["audit"] | {"findings": [{"state": "<script>"}]})
    assert main(["report", str(folder), "--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"error: {folder / 'audit.json'}, findings, 0 lacks 'number': ")
    assert printed.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("everywhere", [True, False], ids=["in all rows", "in the first row"])
def test_columns_without_values_are_reported_or_refused_in_a_line(
    everywhere, folder, tmp_path, without_figures
):
    path, refused = folder / "table.parquet", set()
    good = collect(folder).rows
    for name in good.column_names:
        rest = good[name].to_pylist()[1:]
        values = [None, *([None] * len(rest) if everywhere else rest)]
        write_table(with_column(good, name, values), path)
        redescribe(folder)
        if is_refused(folder, path, tmp_path):
            refused.add(name)
    assert {"attack", "image", "samples", "correct"} <= refused < {*good.column_names}
