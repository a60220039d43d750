"""What a pool of networks gains in time, and what it gives to an attacker who asks again.

``python -m benchmarks.pool MODEL --data DATA``

Adversarial images are made against fresh draws. Then each is asked ten times, by votes of fresh
networks and by votes of one pool that is not renewed: how many images are right every time, and how
often two answers to one image agree.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import smoothinfer as si
from benchmarks.clock import machine
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.numerics.statistics import proportion
from smoothinfer.runtime.processes import tune_malloc

_AGAIN = 10
_SMALL = 8  # images that a vote from the pool takes at once


def answers(smooth: si.SmoothedClassifier, images: Tensor) -> Tensor:
    """Return the verdicts (10, N) of ten votes."""
    parts = [
        torch.cat([smooth.predict(p).labels for p in images.split(_SMALL)]) for _ in range(_AGAIN)
    ]
    return torch.stack(parts)


def asked_again(found: Tensor, labels: Tensor) -> dict[str, Any]:
    """Return what is left of one vote, of ten in a row, and how often two answers agree."""
    right = found == labels
    agree = (found[1:] == found[:-1]).double().mean()
    return {
        "one vote": float(right.double().mean()),
        "ten in a row": proportion(int(right.all(0).sum()), len(labels)).as_dict(),
        "two votes agree": float(agree),
    }


def milliseconds(run: Callable[[], object], repeats: int = 30) -> float:
    """Return the median time of ``run``."""
    run()
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        run()
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times)


def main() -> None:
    """Measure, print, and write ``pool.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="cni-w-resnet20-cifar10")
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--sigma", type=float)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--networks", type=int, default=256)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    tune_malloc()
    data = si.load_data(options.data, "test", options.images, first=True)
    model = with_input_noise(si.load(options.model), options.sigma)
    fresh = si.SmoothedClassifier(model, options.samples)
    pooled = si.SmoothedClassifier(
        model, options.samples, pool=si.NetworkPool(options.networks, renewed=0)
    )
    table: dict[str, Any] = {"model": options.model, "images": options.images}
    one = data.images[:1]
    table["milliseconds"] = {
        "fresh": milliseconds(lambda: fresh.predict(one)),
        "pool": milliseconds(lambda: pooled.predict(one)),
        "pool, stop by value": milliseconds(lambda: pooled.predict(one, stop="value")),
    }
    print(json.dumps(table["milliseconds"]), flush=True)
    points = si.pgd(
        model, data.images, data.labels, si.Linf(8 / 255), steps=20, draws=8, momentum=0.9,
        schedule="cosine", step_size=4 / 255, loss="margin",
    )  # fmt: skip
    for name, images in (("clean", data.images), ("attacked", points)):
        for kind, smooth in (("fresh", fresh), ("pool", pooled)):
            found = asked_again(answers(smooth, images), data.labels)
            table[f"{name}, {kind}"] = found
            print(name, kind, json.dumps(found), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table["machine"] = machine("cpu")
    (options.out / "pool.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
