"""Are certificates worth their name: attacked within their radii, and beside the fixed method.

``python -m benchmarks.certificates MODEL --data DATA --certified DIR``, after
``smoothinfer certify MODEL --data DATA --first --limit N --out DIR``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from scipy.stats import norm
from torch import Tensor, nn

import smoothinfer as si
from benchmarks.clock import machine
from smoothinfer.attacks.naming import attacks_by_name
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import tune_malloc
from smoothinfer.runtime.progress import track
from smoothinfer.smoothing.certifiable import certifiable_sigma
from smoothinfer.smoothing.certification import lower_bound
from smoothinfer.types import ABSTAIN

_BATCH = 64
_ATTACKS = "pgd(loss='margin', steps=40, draws=16)", "multitargeted(draws=8)"


def certified_radii(folder: Path, images: int) -> Tensor:
    """Return the radius of the first images; 0 where the class is wrong or nothing is certain."""
    table = pq.read_table(folder / "rows", columns=["image", "certified", "correct"])
    rows = {row["image"]: row for row in table.to_pylist()}
    kept = [rows[number] for number in range(images)]
    return torch.tensor([row["certified"] if row["correct"] else 0.0 for row in kept])


def attacked(
    model: nn.Module, images: Tensor, labels: Tensor, radii: Tensor, radius: float, passes: int
) -> dict[str, Any]:
    """Attack, in L2 of ``radius``, all images that are certified there; count what breaks.

    An image is broken when ``passes`` fresh passes prefer another class, and not by chance
    (alpha 0.001).
    """
    at = (radii >= radius).nonzero().flatten()
    ball, counts = si.L2(radius), {}
    for name, attack in attacks_by_name(_ATTACKS).items():
        broken = unsure = 0
        for part in track(at.split(_BATCH), f"L2 {radius:g}, {name}", shown=True):
            generator = torch.Generator().manual_seed(int(part[0]))
            found = attack(model, images[part], labels[part], ball, generator=generator)
            answers = si.predict_or_abstain(model, found, samples=passes, seed=1)
            unsure += int((answers == ABSTAIN).sum())
            broken += int(((answers != ABSTAIN) & (answers != labels[part])).sum())
        counts[name] = {"tried": len(at), "broken": broken, "unsure": unsure}
    return counts


def beside_fixed(
    model: nn.Module, images: Tensor, labels: Tensor, radii: Tensor, passes: int, alpha: float
) -> dict[str, Any]:
    """Return how many certificates a fixed number of passes contradicts, except with ``alpha``."""
    sigma, at = certifiable_sigma(model), (radii > 0).nonzero().flatten()
    contradicted = 0
    for part in track(at.split(_BATCH), "counting", shown=True):
        counts = si.SmoothedClassifier(model, passes, seed=2).predict(images[part]).counts
        for number, each in zip(part.tolist(), counts.tolist(), strict=True):
            contradicted += bool(radii[number] > largest(each, int(labels[number]), sigma, alpha))
    return {"certificates": len(at), "passes": passes, "contradicted": contradicted}


def largest(counts: list[int], label: int, sigma: float, alpha: float) -> float:
    """Return a radius that the truth exceeds with probability ``alpha`` at most.

    sigma / 2 (Phi^-1(pA) - Phi^-1(pB)), with a Clopper-Pearson bound of pA from above and bounds of
    all other classes from below, which share ``alpha``.

    >>> round(largest([990, 10], 0, 0.5, 1e-3), 2)
    1.4
    """
    passes, others = sum(counts), [n for k, n in enumerate(counts) if k != label]
    each = alpha / 2 / len(others)
    above = 1 - lower_bound(passes - counts[label], passes, alpha / 2)
    below = max(lower_bound(count, passes, each) for count in others)
    return float(sigma / 2 * (norm.ppf(above) - norm.ppf(below)))


def main() -> None:
    """Measure, print, and write ``certificates.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--certified", type=Path, required=True, help="folder of certify")
    parser.add_argument("--images", type=int, default=500, help="the first ones of the test set")
    parser.add_argument("--radii", type=float, nargs="+", default=[0.25, 0.5, 1.0])
    parser.add_argument("--passes", type=int, default=1000, help="of a vote after an attack")
    parser.add_argument("--fixed", type=int, default=10_000, help="passes of the fixed method")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    tune_malloc()
    data = si.load_data(options.data, "test", options.images, first=True)
    model = si.load(options.model)
    radii = certified_radii(options.certified, options.images)
    images, labels = data.images, data.labels
    found: dict[str, Any] = {"model": options.model, "images": options.images}
    found |= {"machine": machine("cpu"), "fixed": {}, "attacked": {}}
    for radius in options.radii:
        counts = attacked(model, images, labels, radii, radius, options.passes)
        found["attacked"][f"{radius:g}"] = counts
        print(radius, json.dumps(counts), flush=True)
        write_json(options.out / "certificates.json", found)
    found["fixed"] = beside_fixed(model, images, labels, radii, options.fixed, 1e-3)
    print(json.dumps(found["fixed"]), flush=True)
    write_json(options.out / "certificates.json", found)


if __name__ == "__main__":
    main()
