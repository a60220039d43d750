"""Worlds whose truth is known, and the data that tests may find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.config.typed import from_dict
from smoothinfer.numerics.precision import VARIABLE, has_bf16_units
from smoothinfer.sweep_recipe import SweepRecipe

# Truths are the same on every machine, in child processes too: what runs in bfloat16 says so.
os.environ[VARIABLE] = "fp32"
# With "pytest -n" the tests run side by side: each process computes in one thread.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
bf16_only = pytest.mark.skipif(not has_bf16_units("cpu"), reason="bfloat16 is emulated here")

CIFAR10 = Path(__file__).parents[2] / "shared" / "data" / "cifar10"

# A recipe that trains on scikit-learn's digits within seconds.
TINY = {
    "model": {"name": "smallnet", "width": 4},
    "noise": {"weights": "cni(rank=2, diagonal=0.01)"},
    "attack": {"name": "pgd", "steps": 2},
    "ball": {"name": "linf", "radius": 0.1},
    "epochs": 2,
    "batch_size": 64,
    "crop": 1,
    "flip": False,
    "compile": "off",
    "validation": {"held_out": 100, "images": 50},
}
SINGLE_STEP = TINY | {"epochs": 1, "attack": "pgd(steps=1)", "validation_attack": "pgd(steps=1)"}


# accelerate finds its fellows whoever started them; "accelerate launch --cpu" starts only one.
# "--standalone" takes a free port: the usual one may still be held by the launch before.
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]


def launched(launcher: list[str], arguments: list[str]) -> str:
    """Run ``smoothinfer`` in two processes; return what they print."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", *launcher, "-m", "smoothinfer", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class HalfSpace(nn.Module):
    """Two classes on the sides of a plane: logits (-d, d), d the signed distance to it."""

    def __init__(self, shape: tuple[int, int, int] = (1, 4, 4), seed: int = 0) -> None:
        super().__init__()
        normal = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).flatten()
        self.normal = nn.Parameter(normal / normal.norm())

    def distance(self, images: Tensor) -> Tensor:
        return (images - 0.5).flatten(1) @ self.normal

    def forward(self, images: Tensor) -> Tensor:
        distance = self.distance(images)
        return torch.stack([-distance, distance], 1)


@pytest.fixture
def half_space() -> HalfSpace:
    return HalfSpace().eval()


PIXEL_SIGMA = 0.25


class FirstPixel(nn.Module):
    """Class 1 right of the middle of the first pixel, else class 0."""

    def forward(self, images: Tensor) -> Tensor:
        side = images[:, 0, 0, 0] - 0.5
        return torch.stack([-side, side], 1)


def images_at(distances: list[float]) -> Tensor:
    """Images whose first pixel lies so far right of the middle."""
    images = torch.full((len(distances), 1, 2, 2), 0.5)
    images[:, 0, 0, 0] += torch.tensor(distances)
    return images


@pytest.fixture
def noisy_pixel() -> si.NoisyModel:
    return si.NoisyModel(FirstPixel(), inputs=si.Gaussian(PIXEL_SIGMA)).eval()


def small_net(classes: int = 3, channels: int = 1, seed: int = 0) -> nn.Module:
    with si.isolated_rng(seed):
        net = si.smallnet(classes=classes, channels=channels, width=4)
    return nn.Sequential(si.Normalize([0.5] * channels, [0.25] * channels), net)


@pytest.fixture
def net() -> nn.Module:
    return small_net().eval()


@pytest.fixture(params=["inputs", "weights", "both"])
def noisy(request: pytest.FixtureRequest) -> si.NoisyModel:
    inputs = si.Gaussian(0.3) if request.param != "weights" else None
    weights = si.CNI(rank=2) if request.param != "inputs" else None
    return si.NoisyModel(small_net(), inputs=inputs, weights=weights).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.fixture(scope="session")
def cifar10() -> si.ImageData:
    if not CIFAR10.is_dir():
        pytest.skip(f"needs CIFAR-10 as Parquet files in {CIFAR10}")
    return si.load_data(str(CIFAR10), "test", 1000, first=True)


@pytest.fixture
def digits() -> si.ImageData:
    """Training images of `TINY`."""
    return si.load_data("digits", "train", 500)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of `TINY`, made by the command; tests must not change it."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(json.dumps(TINY))  # JSON is YAML
    command = ["train", str(folder / "tiny.yaml"), "--data", "digits", "--out", str(folder / "run")]
    assert main([*command, "--set", "epochs=1", "attack.steps=1"]) == 0
    return folder / "run"


def line() -> nn.Module:
    """A linear model of the digits, for commands: ``tests.conftest:line``."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def noisy_line() -> si.NoisyModel:
    """A linear model of the digits under noise, for commands: ``tests.conftest:noisy_line``."""
    return si.NoisyModel(line(), inputs=si.Gaussian(0.1)).eval()


def fresh_net() -> nn.Module:
    """A convolutional net of the digits, for commands: ``tests.conftest:fresh_net``."""
    with si.isolated_rng(0):
        return si.smallnet().eval()


# A sweep that runs within seconds.
SWEEP = {
    "models": {"line": "tests.conftest:line"},
    "data": "digits",
    "limit": 300,
    "sigma": ["0:0.1:0.05"],
    "attacks": ["fgsm", "pgd(steps=2)"],
    "ball": "linf(radius=0.1)",
    "rules": ["prediction", "soft"],
    "samples": [1, 3],
}


def sweep_recipe(**changes: object) -> SweepRecipe:
    recipe: SweepRecipe = from_dict(SweepRecipe, SWEEP | changes, "the sweep")
    return recipe


@pytest.fixture(scope="session")
def tiny_results(tiny_run: Path) -> Path:
    """The folder of an evaluation of `tiny_run`; tests must not change it."""
    out = tiny_run.parent / "results"
    command = ["evaluate", str(tiny_run), "--data", "digits", "--limit", "20", "--out", str(out)]
    assert main([*command, "--samples", "1", "4", "--attack", "fgsm"]) == 0
    return out
