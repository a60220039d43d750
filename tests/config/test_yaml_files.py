"""YAML of strangers: plain values, or one line that names the file."""

import os
import time

import pytest

import smoothinfer as si
from smoothinfer.config.yaml_files import parse_yaml, read_yaml


def _laughs(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


BAD = {
    "aliases of billions": _laughs(9),
    "an alias of itself": "a: &a [*a]",
    "nested too deeply": "[" * 1000 + "]" * 1000,
    "an object of Python": "!!python/object/apply:os.system ['touch hacked']",
    "no such date": "day: 2001-99-99",
    "an open bracket": "a: [1, 2",
    "a list as a key": "[1, 2]: 3\n? {a: 1}\n: 2",
    "a control character": "a: \x07",
    "a bad integer": "a: !!int b",
    "two documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_bad_yaml_is_refused_at_once_in_one_line(text):
    start = time.process_time()  # whatever else the machine does
    with pytest.raises(si.InputError) as raised:
        parse_yaml(text, "the recipe")
    assert time.process_time() - start < 2
    assert str(raised.value).startswith("the recipe ")
    assert "\n" not in str(raised.value)


def test_aliases_and_anchors_are_welcome():
    assert parse_yaml("a: &x {steps: 2}\nb: *x", "r") == {"a": {"steps": 2}, "b": {"steps": 2}}
    assert parse_yaml("", "r") is None


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes("über: 1".encode("latin-1"))
    with pytest.raises(si.InputError, match=r"r\.yaml is not UTF-8 \(byte 0\)"):
        read_yaml(path)
    path.write_bytes(b"#" * (1 << 21))
    with pytest.raises(si.InputError, match="too large"):
        read_yaml(path)
    with pytest.raises(si.InputError, match="cannot read"):
        read_yaml(tmp_path)


def test_a_range_is_no_time_of_day():
    assert parse_yaml("[0:1:0.1, 1:30]", "r") == ["0:1:0.1", "1:30"]
    assert parse_yaml("[1.5, 7]", "r") == [1.5, 7]


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "r.yaml")
    with pytest.raises(si.InputError, match="not a plain file"):
        read_yaml(tmp_path / "r.yaml")
