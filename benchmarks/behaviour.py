"""How cost grows, what stopping saves, what bfloat16 changes: ``-m benchmarks.behaviour``."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import smoothinfer as si
from benchmarks.clock import machine
from benchmarks.grid import sweep
from benchmarks.subject import RADIUS, cni
from benchmarks.verdicts import agreement, stopping
from smoothinfer.config.components import Component
from smoothinfer.runtime.processes import tune_malloc
from smoothinfer.training import loop
from smoothinfer.training.losses import adversarial
from smoothinfer.training.options import TrainingOptions

_MEMORY = (64, 4096)


def memory(options: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of a vote of few and of many passes, each in a process of its own."""
    peaks = {}
    for samples in _MEMORY:
        code = f"from benchmarks.behaviour import peak; print(peak({samples}, {options.images}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        done.check_returncode()
        peaks[samples] = float(done.stdout.split()[-1])
    few, many = peaks.values()
    return {"MiB": peaks, "growth": many / few - 1}


def peak(samples: int, images: int) -> float:
    """Return the peak memory of this process, in MiB, after a vote."""
    si.SmoothedClassifier(cni(), samples).predict(torch.rand(images, 3, 32, 32))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def linear(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds against images and against passes, and the line a + b x through them."""
    model, found = cni(), {}
    grids: dict[str, tuple[list[int], Callable[[int], Callable[[], object]]]] = {
        "images": (
            [100, 316, 1000, 3162, 10_000][: options.points],
            lambda count: _vote(model, count, 8),
        ),
        "passes": (
            [8, 32, 128, 512, 2048][: options.points],
            lambda count: _vote(model, 100, count),
        ),
    }
    for name, (grid, make) in grids.items():
        make(grid[0])()  # kernels are chosen once
        seconds = [_seconds(make(count)) for count in grid]
        found[name] = {"at": grid, "seconds": seconds} | _fits(grid, seconds)
    return found


def _vote(model: si.NoisyModel, images: int, samples: int) -> Callable[[], object]:
    pixels = torch.rand(images, 3, 32, 32)
    smooth = si.SmoothedClassifier(model, samples, seed=0)
    return lambda: smooth.predict(pixels)


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def _fits(places: Sequence[float], seconds: Sequence[float]) -> dict[str, float]:
    """Fit a line a + b x, its errors relative to the seconds, and a power law c x^d.

    >>> fit = _fits([1, 10, 100], [2.5, 25.0, 250.0])
    >>> {name: round(value, 3) + 0.0 for name, value in fit.items()}
    {'a': 0.0, 'b': 2.5, 'farthest from the line': 0.0, 'exponent': 1.0}
    """
    x, y = (torch.tensor(values, dtype=torch.float64) for values in (places, seconds))
    parts = torch.stack([1 / y, x / y], 1)
    a, b = torch.linalg.lstsq(parts, torch.ones_like(y)[:, None]).solution.flatten()
    logs = torch.stack([torch.ones_like(x), x.log()], 1)
    exponent = torch.linalg.lstsq(logs, y.log()[:, None]).solution[1]
    return {
        "a": float(a),
        "b": float(b),
        "farthest from the line": float(((a + b * x) / y - 1).abs().max()),
        "exponent": float(exponent),
    }


def epoch(options: argparse.Namespace) -> dict[str, Any]:
    """An epoch of PGD-7 training with CNI, against its passes at the measured rate of a pass.

    A forward counts as one pass, a backward to the images as one more, to images and weights as
    two: 7 (1 + 1) + 2 (1 + 2) = 20 passes an image.
    """
    model, count = cni(), options.batch * options.steps
    pixels = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8)
    data = si.ImageData("random", pixels, torch.arange(count) % 10, tuple("abcdefghij"))
    rate = _seconds(_vote(model, 256, 8)) / (256 * 8)
    attack = partial(si.pgd, ball=si.Linf(RADIUS), steps=7, step_size=2 / 255)
    settings = TrainingOptions(
        epochs=1,
        batch_size=options.batch,
        lr=0.01,
        schedule=Component("constant"),
        save_seconds=1e9,
    )
    spans: list[tuple[float, float]] = []
    real = loop.Run.step

    def timed(run: loop.Run) -> float:
        begun = time.perf_counter()
        loss = real(run)
        spans.append((begun, time.perf_counter()))
        return loss

    loop.Run.step = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder)
            loss = partial(adversarial, attack=attack)
            loop.train(
                model, loss, data, settings, out, lambda _: {"attacked": 0.0}, lambda *_: None
            )
    finally:
        loop.Run.step = real  # type: ignore[method-assign]
    spans = spans[1:]  # the first step plans and warms up
    inside = sorted(end - begun for begun, end in spans)
    step, total = inside[len(inside) // 2], spans[-1][1] - spans[0][0]
    return {
        "seconds a step": step,
        "times its passes at the measured rate": step / (20 * options.batch * rate),
        "share outside the steps": 1 - sum(inside) / total,
        "minutes an epoch of 45,000 images": step * 45_000 / options.batch / 60,
    }


PARTS = {
    "memory": memory,
    "linear": linear,
    "stopping": stopping,
    "agreement": agreement,
    "epoch": epoch,
    "sweep": sweep,
}


def report(held: dict[str, dict[str, Any]]) -> str:
    """Return everything as Markdown, a line for each number."""
    lines = ["# Behaviour", ""]
    for part, found in held.items():
        lines += [f"## {(PARTS[part].__doc__ or part).strip().splitlines()[0]}", ""]
        lines += [f"Machine: {found['machine']}. Options: {found['options']}.", ""]
        lines += ["| | |", "| :--- | ---: |"]
        numbers = {name: value for name, value in found.items() if name not in _SETTINGS}
        lines += [f"| {name} | {value} |" for name, value in _flat(numbers)] + [""]
    return "\n".join(lines)


_SETTINGS = ("machine", "options")


def _flat(numbers: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the numbers of a nested table, each with its path.

    >>> list(_flat({"clean": {"passes": 31.25}, "at": [1, 2]}))
    [('clean, passes', '31.2'), ('at', '1, 2')]
    """
    for name, value in numbers.items():
        path = f"{before}, {name}" if before else str(name)
        if isinstance(value, dict):
            yield from _flat(value, path)
        else:
            values = value if isinstance(value, list) else [value]
            yield path, ", ".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in values)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print, and write ``behaviour.json`` and ``behaviour.md``; parts add up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument(
        "--model", default="cni-w-resnet20-cifar10", help="for all but memory, linear, epoch"
    )
    parser.add_argument("--data", default="uoft-cs/cifar10", help="for the same")
    parser.add_argument("--images", type=int, default=1000, help="for memory, stopping")
    parser.add_argument("--verdicts", type=int, default=10_000, help="images for agreement")
    parser.add_argument("--grid-images", type=int, default=128, help="for sweep")
    parser.add_argument("--naive-passes", type=int, default=8, help="timed for the naive loop")
    parser.add_argument("--sigma", type=float, default=0.06, help="for stopping, agreement")
    parser.add_argument("--samples", type=int, default=512, help="for agreement")
    parser.add_argument("--points", type=int, default=5, help="for linear")
    parser.add_argument("--batch", type=int, default=128, help="for epoch")
    parser.add_argument("--steps", type=int, default=10, help="for epoch")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args(given)
    tune_malloc()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "behaviour.json"
    held = json.loads(path.read_text()) if path.exists() else {}
    for part in options.parts:
        found = PARTS[part](options)
        held[part] = {"machine": machine("cpu"), "options": vars(options) | {"out": ""}, **found}
        print(json.dumps({part: found}, indent=1))
        path.write_text(json.dumps(held, indent=1, default=str) + "\n")
        path.with_suffix(".md").write_text(report(held))


if __name__ == "__main__":
    main()
