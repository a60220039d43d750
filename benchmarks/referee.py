"""Attacks on a model, random or not, judged by fresh votes; beside AutoAttack.

``python -m benchmarks.referee MODEL --data DATA``

AutoAttack's version for random models calls an image broken when a single draw errs, before an
attack or after one. Beside its own count stands what a fresh vote of its examples says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

import smoothinfer as si
from benchmarks.clock import machine
from benchmarks.peers import auto_attack, installed, silent, versions
from smoothinfer.attacks.checks import is_random
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.numerics.statistics import Interval, proportion
from smoothinfer.runtime.files import write_bytes
from smoothinfer.runtime.processes import tune_malloc

BATCH = 128


def tools(
    model: nn.Module, radius: float, random: bool
) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """Return each attack: a batch -> adversarial images, and its own answers or none."""
    ball = si.Linf(radius)

    def ours(name: str, images: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, None]:
        generator = torch.Generator().manual_seed(0)
        attack = partial(si.ATTACKS[name], generator=generator, **options)
        return attack(model, images, labels, ball), None

    found: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "standard": partial(ours, "standard"),
        "standard, quick": partial(ours, "standard", budget="quick"),
    }
    averaged: dict[str, Callable[[Tensor, Tensor], Any]] = {
        "multi-targeted, 8 draws": partial(ours, "multitargeted", draws=8),
        "APGD, margin": partial(ours, "apgd", loss="margin", steps=40, draws=8),
        "PGD with momentum, margin": partial(
            ours,
            "pgd",
            loss="margin",
            steps=40,
            draws=8,
            step_size=radius / 2,
            momentum=0.9,
            schedule="cosine",
        ),
    }
    found |= averaged if random else {}
    if installed("pyautoattack"):
        version = "rand" if random else "standard"
        theirs = auto_attack(model, radius, version)
        found[f"AutoAttack, {version}"] = lambda images, labels: theirs(images, labels, BATCH)
    return found


def attacked(
    run: Callable[[Tensor, Tensor], Any], images: Tensor, labels: Tensor, folder: Path
) -> tuple[Tensor, Tensor | None, list[float]]:
    """Return adversarial images, the attack's answers and the seconds of each batch.

    Batches are kept in ``folder``: a killed run goes on after its last one.
    """
    found, answers, seconds = [], [], []
    for at in range(0, len(images), BATCH):
        path = folder / f"{at:06}.safetensors"
        if not path.exists():
            begun = time.perf_counter()
            part, own = run(images[at : at + BATCH], labels[at : at + BATCH])
            spent = torch.tensor(time.perf_counter() - begun, dtype=torch.float64)
            kept = {"found": part.contiguous(), "seconds": spent}
            write_bytes(path, save(kept | ({} if own is None else {"answers": own})))
        batch = load_file(path)
        found.append(batch["found"])
        answers += [batch["answers"]] if "answers" in batch else []
        seconds.append(float(batch["seconds"]))
        print(f"{folder.name}: {min(at + BATCH, len(images))} images", flush=True)
    return torch.cat(found), torch.cat(answers) if answers else None, seconds


def judge(
    model: nn.Module, images: Tensor, labels: Tensor, found: Tensor, answers: Tensor | None
) -> dict[str, Any]:
    """Return what is left by fresh votes of 512 passes, and by the attack's own count."""
    smooth = si.SmoothedClassifier(model, 512, seed=1)
    vote = smooth.predict(found)
    right = vote.labels == labels
    passes = vote.counts.gather(1, labels[:, None]).squeeze(1) / vote.samples
    row: dict[str, Any] = {
        "vote": proportion(int(right.sum()), len(labels)).as_dict(),
        "one pass": float(passes.double().mean()),
    }
    if answers is not None:
        broken = answers != labels
        still = (found == images).flatten(1).all(1)
        row |= {
            "its own count": proportion(int((~broken).sum()), len(labels)).as_dict(),
            "called broken": int(broken.sum()),
            "of these right in the vote": int((broken & right).sum()),
            "of these not moved": int((broken & right & still).sum()),
        }
    return row


def main() -> None:
    """Measure, print, and write ``referee-MODEL.json``; the results of several calls are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="cni-w-resnet20-cifar10")
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--sigma", type=float, help="by default the model's own input noise")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--radius", type=float, default=8 / 255)
    parser.add_argument("--tools", nargs="*")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    silent()
    tune_malloc()
    data = si.load_data(options.data, "test", options.images, first=True)
    model = with_input_noise(si.load(options.model), options.sigma)
    random = is_random(model, data.images[:2])
    path = options.out / f"referee-{options.model.replace('/', '-')}.json"
    table = json.loads(path.read_text()) if path.exists() else {"tools": {}}
    table |= {"model": options.model, "sigma": options.sigma, "images": options.images}
    table |= {"machine": machine("cpu"), "peers": versions()}
    options.out.mkdir(parents=True, exist_ok=True)
    world = model, data.images, data.labels, options.radius, si.ATTACKS, versions()
    for name, run in tools(model, options.radius, random).items():
        if options.tools and name not in options.tools:
            continue
        # Batches of another model, radius, image or code are in another folder.
        folder = path.with_suffix("") / f"{name} {Fingerprint().of(name, *world)[:12]}"
        found, answers, seconds = attacked(run, data.images, data.labels, folder)
        row = judge(model, data.images, data.labels, found, answers)
        row |= {"seconds": sum(seconds), "seconds of a batch": statistics.median(seconds)}
        table["tools"][name] = row
        path.write_text(json.dumps(table, indent=1) + "\n")
        print(name, Interval(**row["vote"]), row, flush=True)


if __name__ == "__main__":
    main()
