"""Which command reads which file, and what comes of it: to be the same, or refused."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file

from tests.fuzz import world as worlds


@dataclass(frozen=True)
class Reader:
    """A command that reads files of the world.

    Attributes:
        words: of the command line, for the folder of the world.
        files: patterns of the files that it reads.
        results: patterns of the files whose content is the result; by default what it prints.
        checked: patterns of those of ``files`` that carry checksums.
    """

    words: Callable[[Path], Sequence[str]]
    files: tuple[str, ...]
    results: tuple[str, ...]
    checked: tuple[str, ...] = ()

    def result(self, root: Path, printed: str) -> str:
        """A digest of what the command has found, without times and places."""
        if not self.results:
            return hashlib.sha256(printed.encode()).hexdigest()
        paths = sorted({path for pattern in self.results for path in root.glob(pattern)})
        return hashlib.sha256(repr([_content(path) for path in paths]).encode()).hexdigest()


def _content(path: Path) -> object:
    """The content of a result, without what differs from run to run."""
    if not path.is_file():
        return None
    if path.suffix == ".safetensors":  # the order of its metadata is chance
        return {name: tensor.tolist() for name, tensor in sorted(load_file(path).items())}
    if path.suffix == ".json":
        content = json.loads(path.read_text())
        kept = ("settings", "sigma", "rule", "certified accuracy", "findings", "images", "recipe")
        kept += ("figures", "epochs", "data")
        named = {key: content.get(key) for key in kept} if isinstance(content, dict) else content
        if isinstance(named["settings"], dict):  # of the command, not of the grid
            del named["settings"]
        return named
    return path.read_bytes()


_RUN = ("run/best.safetensors", "run/best.json")
_CHECKPOINT = ("published/net.safetensors", "published/net.json")
_SUMMARY = ("evaluate/summary.json", "evaluate/table.parquet")
_REPORTED = ("evaluate", "certify", "audit", "picture")
_ROWS = ("evaluate/rows/*.parquet", "evaluate/crafted/*.safetensors")


def _data(name: str) -> Reader:
    def words(root: Path) -> list[str]:
        line = ["evaluate", "tests.conftest:line", "--data", str(root / name), "--attack", "none"]
        return [*line, "--samples", "1", "--out", str(root / "out")]

    return Reader(words, (name, f"{name}/**/*.*"), ("out/summary.json",))


def _recipe(root: Path) -> list[str]:
    out = str(root / "out")
    return ["train", str(root / "tiny.yaml"), "--data", "digits", "--limit", "200", "--out", out]


def _picture(root: Path) -> list[str]:
    few = ["--data", "digits", "--limit", "2", "--out", str(root / "out")]
    return ["picture", "noise", str(root / "run"), *few]


def _publish(root: Path) -> list[str]:
    results = ["--results", str(root / "evaluate"), "--out", str(root / "out")]
    return ["publish", str(root / "run"), "--name", "net", *results]


def _certify_published(root: Path) -> list[str]:
    return ["certify", str(root / "published/net.safetensors"), *worlds.certify(root)[2:]]


def _report(root: Path) -> list[str]:
    return ["report", *(str(root / each) for each in _REPORTED), "--out", str(root / "out")]


def _reuse_examples(root: Path) -> list[str]:
    """Vote by another rule, on the adversarial examples that are kept."""
    return [*worlds.evaluate(root), "--rule", "soft"]


READERS = {
    "evaluate": Reader(
        worlds.evaluate, (*_RUN, *_ROWS), ("evaluate/summary.json",), (*_RUN, *_ROWS)
    ),
    "crafted": Reader(
        _reuse_examples,
        ("evaluate/crafted/*.safetensors",),
        ("evaluate/summary.json",),
        ("evaluate/crafted/*.safetensors",),
    ),
    "attack": Reader(
        worlds.attack,
        ("attack/examples/*.safetensors", "attack/rows/*", "attack/*.json", "attack/*.parquet"),
        ("attack/summary.json", "attack/examples/*.safetensors"),
        ("attack/examples/*.safetensors", "attack/rows/*"),
    ),
    "calibrate": Reader(
        worlds.calibrate,
        ("calibrate/rows/*.parquet", "calibrate/crafted/*", "calibrate/*.json"),
        ("calibrate/calibration.json",),
        ("calibrate/rows/*.parquet", "calibrate/crafted/*"),
    ),
    "certify": Reader(
        worlds.certify,
        (*_RUN, "certify/rows/*.parquet", "certify/certified.json"),
        ("certify/certified.json",),
        (*_RUN, "certify/rows/*.parquet"),
    ),
    "sweep": Reader(
        worlds.sweep,
        ("sweep.yaml", "sweep/rows/*.parquet", "sweep/crafted/*", "sweep/*.json"),
        ("sweep/summary.json",),
        ("sweep/rows/*.parquet", "sweep/crafted/*"),
    ),
    "merge": Reader(
        lambda root: [*worlds.sweep(root)[:-1], str(root / "out"), "--merge", str(root / "sweep")],
        ("sweep/rows/*.parquet",),
        ("out/summary.json",),
        ("sweep/rows/*.parquet",),
    ),
    "train": Reader(
        worlds.train,
        ("tiny.yaml", "run/state.pt", "run/recipe.yaml", "run/log.json", "run/*.csv", "run/*.json"),
        ("run/last.safetensors", "run/last.json"),
        ("run/state.pt", "run/recipe.yaml"),
    ),
    "recipe": Reader(_recipe, ("tiny.yaml",), ("out/last.json",)),
    "picture": Reader(_picture, _RUN, ("out/noise.json",), _RUN),
    "publish": Reader(
        _publish,
        (*_RUN, *_SUMMARY, "run/epochs.csv", "run/strengths.json"),
        ("out/net.json", "out/net.safetensors"),
        (*_RUN, *_SUMMARY, "run/strengths.json"),
    ),
    "models": Reader(
        lambda root: ["models", "--folder", str(root / "published")],
        _CHECKPOINT,
        (),
        ("published/net.json",),
    ),
    "published": Reader(
        _certify_published,
        _CHECKPOINT,
        ("certify/certified.json",),
        _CHECKPOINT,
    ),
    "report": Reader(
        _report,
        tuple(f"{each}/{kind}" for each in _REPORTED for kind in ("*.json", "*.parquet", "*.png")),
        ("out/report.md",),
        tuple(f"{each}/{kind}" for each in _REPORTED for kind in ("*.json", "*.parquet")),
    ),
    "arrays": _data("data.npz"),
    "packed arrays": _data("packed.npz"),
    "pictures": _data("pictures"),
    "tables": _data("parquet"),
}  # fmt: skip
