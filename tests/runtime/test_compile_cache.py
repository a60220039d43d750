"""The compiler's work is carried in a file, which is refused where it is damaged."""

import subprocess
import sys

import pytest

from smoothinfer.errors import InputError
from smoothinfer.runtime.checksums import append_checksum
from smoothinfer.runtime.compile_cache import compile_cache

PROGRAM = """
import sys, torch
from torch._dynamo.utils import counters
from smoothinfer.runtime.compile_cache import compile_cache
with compile_cache(sys.argv[1]):
    torch.compile(lambda x: (x.sin() + x.cos()).relu() * 2)(torch.rand(64))
print(counters["inductor"]["fxgraph_cache_hit"])
"""


@pytest.mark.slow  # the compiler takes half a minute
def test_another_process_takes_up_the_work_of_the_compiler(tmp_path, monkeypatch):
    found = []
    for run in ("first", "second"):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / run))  # nothing else is shared
        words = [sys.executable, "-c", PROGRAM, str(tmp_path / "cache")]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
        found.append(int(ended.stdout))
    assert found == [0, 1]


def test_damaged_and_foreign_files_are_refused_before_the_work(tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(b"stranger's")
    with pytest.raises(InputError, match=r"damaged .* delete it"), compile_cache(path):
        pytest.fail("the work began")
    path.write_bytes(append_checksum(b"no cache at all"))
    with pytest.raises(InputError, match="no cache of this compiler"), compile_cache(path):
        pytest.fail("the work began")


def test_no_file_is_no_cache():
    with compile_cache(None):
        pass


def test_a_place_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    inside = tmp_path / "file" / "cache"
    with (
        pytest.raises(InputError, match=r"--compile-cache.* in a file"),
        compile_cache(inside),
    ):
        pytest.fail("the work began")
