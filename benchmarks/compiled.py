"""What ``torch.compile`` gains on a GPU, in votes and in training: ``-m benchmarks.compiled``."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smoothinfer as si
from benchmarks.__main__ import RADIUS, network
from benchmarks.clock import machine
from smoothinfer.numerics.precision import computing
from smoothinfer.smoothing.passes import Engine
from smoothinfer.training.losses import adversarial


def votes(options: argparse.Namespace) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Yield passes of a ResNet-20 with CNI, eager and compiled: name, passes times images, run."""
    model = si.NoisyModel(network(), weights=si.CNI(rank=5)).to(options.device).eval()
    for compiled in (False, True):
        for count in options.images:
            images = torch.rand(count, 3, 32, 32, device=options.device)
            engine = Engine(model, images, 0, compile=compiled)

            def run(engine: Engine = engine, images: Tensor = images) -> None:
                for logits in engine.run(images, 0, options.samples):
                    logits.argmax(1)

            told = "compiled" if compiled else "eager"
            yield f"votes on {count} images, {told}", count * options.samples, run


def steps(options: argparse.Namespace) -> Iterator[tuple[str, int, Callable[[], object]]]:
    """Yield a step of PGD-7 training with CNI, eager and compiled: name, images, run."""
    count = options.batch
    pixels = torch.rand(count, 3, 32, 32, device=options.device)
    images = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(count, device=options.device) % 10

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return si.pgd(model, x, y, si.Linf(RADIUS), steps=7)

    for compiled in (False, True):
        model: Any = si.NoisyModel(network(), weights=si.CNI(rank=5)).to(options.device)
        model.to(memory_format=torch.channels_last)
        running = torch.compile(model) if compiled else model

        def run(running: nn.Module = running) -> None:
            running.train().zero_grad()
            with computing("auto", images.device):
                loss = adversarial(running, images, labels, attack)
            loss.backward()  # type: ignore[no-untyped-call]

        yield f"step on {count} images, {'compiled' if compiled else 'eager'}", count, run


def main() -> None:
    """Measure, print each case at once, and write ``compiled.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[128, 1024])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--parts", nargs="+", choices=("votes", "steps"), default=["votes", "steps"]
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("results/compiled"))
    options = parser.parse_args()
    made = {"votes": votes, "steps": steps}
    found = {}
    for part in options.parts:
        for name, images, run in made[part](options):
            seconds = [_seconds(run) for _ in range(options.repeats + 1)]
            median = sorted(seconds[1:])[len(seconds[1:]) // 2]
            found[name] = {
                "first": seconds[0],
                "seconds": median,
                "images a second": images / median,
            }
            print(
                name, {key: float(f"{value:.3g}") for key, value in found[name].items()}, flush=True
            )
    options.out.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine(options.device), "cases": found}
    (options.out / "compiled.json").write_text(json.dumps(told, indent=1) + "\n")


def _seconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
