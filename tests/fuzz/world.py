"""Good files of every kind, made once by the commands themselves."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from smoothinfer.cli import main
from tests.conftest import TINY

SWEEP = {
    "models": {"line": "tests.conftest:line"},
    "data": "digits",
    "limit": 4,
    "sigma": ["0:0.1:0.05"],
    "attacks": ["fgsm"],
    "ball": "linf(radius=0.1)",
    "rules": ["prediction"],
    "samples": [1, 2],
}


_FEW = ("--data", "digits", "--limit", "4", "--seed", "1")
_VOTE = (*_FEW, "--samples", "1", "2", "--attack", "fgsm")


def make_world(root: Path) -> Path:
    """Write recipes, data and the folders of all commands into ``root``."""
    _write_recipes(root)
    _write_data(root)
    line = ["tests.conftest:line", "--data", "digits", "--limit", "16", "--radius", "0.05"]
    results = ["--results", str(root / "evaluate"), "--out", str(root / "published")]
    picture = ["--data", "digits", "--limit", "2", "--out", str(root / "picture")]
    for command in (
        *(each(root) for each in (train, evaluate, attack, calibrate, certify, sweep)),
        ["audit", *line, "--quick", "--out", str(root / "audit")],
        ["picture", "noise", str(root / "run"), *picture],
        ["publish", str(root / "run"), "--name", "net", *results],
        ["report", str(root / "evaluate"), "--out", str(root / "report")],
        ["models", "--folder", str(root / "published")],
    ):
        assert main(command) in (0, 1), command
    return root


def train(root: Path) -> list[str]:
    """The command that made ``run``."""
    data = ["--data", "digits", "--limit", "200"]
    return ["train", str(root / "tiny.yaml"), *data, "--out", str(root / "run")]


def evaluate(root: Path) -> list[str]:
    """The command that made ``evaluate``."""
    return ["evaluate", str(root / "run"), *_VOTE, "--out", str(root / "evaluate")]


def attack(root: Path) -> list[str]:
    """The command that made ``attack``."""
    return ["attack", str(root / "run"), *_VOTE, "--out", str(root / "attack")]


def calibrate(root: Path) -> list[str]:
    """The command that made ``calibrate``."""
    grid = ["--samples", "2", "--attack", "fgsm", "--sigma", "0.1", "0.2", "--split", "test"]
    return ["calibrate", str(root / "run"), *_FEW, *grid, "--out", str(root / "calibrate")]


def certify(root: Path) -> list[str]:
    """The command that made ``certify``."""
    noise = ["--sigma", "0.1", "--samples", "20"]
    return ["certify", str(root / "run"), *_FEW, *noise, "--out", str(root / "certify")]


def sweep(root: Path) -> list[str]:
    """The command that made ``sweep``."""
    return ["sweep", str(root / "sweep.yaml"), "--out", str(root / "sweep")]


def _write_recipes(root: Path) -> None:
    few = {"epochs": 1, "attack": {"name": "fgsm"}, "validation": {"held_out": 50, "images": 20}}
    (root / "tiny.yaml").write_text(json.dumps(TINY | few))  # JSON is YAML
    (root / "sweep.yaml").write_text(json.dumps(SWEEP))


def _write_data(root: Path) -> None:
    """Write the same few pictures as arrays, as a folder and as a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 256, (20, 8, 8), np.uint8)
    labels = np.arange(20) % 10
    arrays = {
        f"{kind}_{split}": each
        for split in ("train", "test")
        for kind, each in (("x", pixels), ("y", labels))
    }
    np.savez(root / "data.npz", **arrays)
    np.savez_compressed(root / "packed.npz", **arrays)
    rows = []
    for split in ("train", "test"):
        for at, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
            path = root / "pictures" / split / str(label) / f"{at}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path)
            rows.append({"image": {"bytes": path.read_bytes(), "path": None}, "label": int(label)})
    folder = root / "parquet"
    folder.mkdir()
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": [str(k) for k in range(10)]},
    }
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("image", picture), ("label", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.Table.from_pylist(rows, schema)
    pq.write_table(table.slice(0, 20), folder / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(20), folder / "test-00000-of-00001.parquet")
