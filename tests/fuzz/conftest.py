"""One world of good files for each module, and a process in which nothing can do harm."""

import contextlib
import importlib
import io
import os
import resource
import sys
import tempfile

import pytest

from tests.fuzz.judge import Clock, watch_work
from tests.fuzz.world import make_world

_MEMORY = 6 * 2**30  # bytes that a case may take beside what the process has
# Imported when first needed: a command that is cut off meanwhile would leave a part of them.
_HEAVY = (
    "torch._dynamo", "torch.fx.experimental.symbolic_shapes", "matplotlib.backends.backend_agg",
    "accelerate", "datasets", "sklearn.svm", "sklearn.datasets", "scipy.stats", "huggingface_hub",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An empty folder, in which this process works, keeps its caches and knows no network."""
    folder = tmp_path_factory.mktemp("fuzz")
    for name in _HEAVY:
        importlib.import_module(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SMOOTHINFER_CACHE", str(folder / "cache"))
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.setitem(sys.modules, "ray", None)  # a cluster is no small work
        patch.setattr(os, "fsync", lambda descriptor: None)  # nobody pulls the plug here
        (folder / "here").mkdir()
        patch.chdir(folder / "here")
        with _little_memory():
            yield folder


@pytest.fixture(scope="module")
def world(place):
    """The folder of good files of every kind."""
    (place / "world").mkdir()
    with contextlib.redirect_stdout(io.StringIO()):
        return make_world(place / "world")


@pytest.fixture(scope="module")
def clock():
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        watch_work(patch, clock)
        yield clock


@contextlib.contextmanager
def _little_memory():
    """Let what asks for too much memory fail, before the machine does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
