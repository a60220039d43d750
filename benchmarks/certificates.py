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
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import tune_malloc
from smoothinfer.runtime.progress import track
from smoothinfer.smoothing.certification import lower_bound

_BATCH = 64
_ATTACKS = {
    "PGD-40x16, margin": {"name": "pgd", "loss": "margin", "steps": 40, "draws": 16},
    "multi-targeted x8": {"name": "multitargeted", "draws": 8},
}


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
    for name, options in _ATTACKS.items():
        broken = unsure = 0
        how = {key: value for key, value in options.items() if key != "name"}
        for part in track(at.split(_BATCH), f"L2 {radius:g}, {name}", shown=True):
            generator = torch.Generator().manual_seed(int(part[0]))
            attack = si.ATTACKS[str(options["name"])]
            found = attack(model, images[part], labels[part], ball, generator=generator, **how)
            answers = si.predict_or_abstain(model, found, samples=passes, seed=1)
            unsure += int((answers == -1).sum())
            broken += int(((answers != -1) & (answers != labels[part])).sum())
        counts[name] = {"tried": len(at), "broken": broken, "unsure": unsure}
    return counts


def beside_fixed(
    model: si.NoisyModel, images: Tensor, labels: Tensor, radii: Tensor, passes: int, alpha: float
) -> dict[str, Any]:
    """Return how many certificates the fixed method contradicts, with its bound from above.

    A certificate of radius R says that pA >= Phi(R / sigma). With n_A of n passes, pA is at most
    the Clopper-Pearson bound from above, except with probability ``alpha``.
    """
    sigma = float(model.inputs.sigma)  # type: ignore[union-attr,arg-type]
    at = (radii > 0).nonzero().flatten()
    contradicted = 0
    for part in track(at.split(_BATCH), "counting", shown=True):
        counts = si.SmoothedClassifier(model, passes, seed=2).predict(images[part]).counts
        hits = counts.gather(1, labels[part][:, None]).squeeze(1)
        for number, right in zip(part.tolist(), hits.tolist(), strict=True):
            above = 1 - lower_bound(passes - right, passes, alpha)
            contradicted += float(norm.cdf(radii[number] / sigma)) > above
    return {"certificates": len(at), "passes": passes, "contradicted": contradicted}


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
    assert isinstance(model, si.NoisyModel)
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
