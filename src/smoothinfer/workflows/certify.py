"""``smoothinfer certify``: Cohen's certificates and predictions of a data set, told and kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from smoothinfer.data import ImageData
from smoothinfer.evaluation import average_radius, certified_accuracy, certify_rows
from smoothinfer.evaluation.rows import Rows
from smoothinfer.runtime.files import write_json
from smoothinfer.workflows.evaluate import under_noise
from smoothinfer.runtime.processes import Processes
from smoothinfer.numerics.randomness import derive_seed
from smoothinfer.numerics.statistics import proportion
from smoothinfer.runtime.provenance import made_by
from smoothinfer.reporting.figures import certified_curve
from smoothinfer.smoothing.certification import FLOATS, certifiable_sigma, predict_or_abstain
from smoothinfer.types import ABSTAIN


def certify_run(
    model: nn.Module,
    data: ImageData,
    out: Path,
    *,
    sigma: float | None = None,
    skip: int = 1,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> Rows:
    """Certify images of ``data``; print and write certified accuracies and their curve.

    Args:
        model: in eval mode.
        data: images and labels.
        out: folder of rows, ``certified.json`` and ``certified.png``.
        sigma: Gaussian input noise to put on the model; ``None`` leaves its own.
        skip: take every so many images.
        seed: names the passes.
        settings: what the user asked for.
        options: of `certify`.
    """
    processes = Processes()
    model.to(processes.device)
    noisy = model if sigma is None else under_noise(model, sigma)
    where = out / "rows"
    rows = certify_rows(noisy, data, out=where, skip=skip, seed=seed, progress=True, **options)
    asked, sigma_of = options.get("radius"), rows["sigma"][0].as_py()
    # Not rounded: a certificate at exactly the radius asked for reaches it.
    radii = [0.5 * sigma_of * k for k in range(9)] if asked is None else [asked]
    shares = certified_accuracy(rows, radii)
    console = Console(quiet=not processes.main, highlight=False)
    for radius, share in zip(radii, shares, strict=True):
        console.print(f"radius {radius:5.3f}: {share} %")
    unsure = rows["predicted"].to_pylist().count(ABSTAIN)
    # Of radii that were not sought there is no mean.
    mean = average_radius(rows) if asked is None else None
    told = "" if mean is None else f"average radius {mean:.4f}, "
    console.print(f"{told}abstained on {unsure} of {len(rows)} images")
    console.print(f"note: {FLOATS}")
    summary = {
        "settings": {**(settings or {}), **made_by(), "data hash": data.hash},
        "images": len(rows),
        "abstained": unsure,
        "average radius": mean,
        "certified accuracy": [
            {"radius": radius} | share.as_dict()
            for radius, share in zip(radii, shares, strict=True)
        ],
        "interval": "95 % (Wilson) over images; each certificate holds but for alpha",
        "note": FLOATS,
    }
    if processes.main:
        write_json(out / "certified.json", summary)
    if processes.main and asked is None:
        certified_curve(rows, out / "certified.png", f"{len(rows)} images of {data.name}")
    return rows


def predict_run(
    model: nn.Module,
    data: ImageData,
    out: Path,
    *,
    sigma: float | None = None,
    skip: int = 1,
    samples: int = 100,
    alpha: float = 1e-3,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Predict or abstain on images of ``data`` as Cohen does; print, write ``predicted.json``.

    Args:
        model, data, out, sigma, skip, seed, settings: as for `certify_run`.
        samples, alpha: see `predict_or_abstain`.
    """
    processes = Processes()
    model.to(processes.device)
    noisy = model if sigma is None else under_noise(model, sigma)
    certifiable_sigma(noisy)
    kept = data[torch.arange(0, len(data), skip)]
    labels = predict_or_abstain(
        noisy,
        kept.images.to(processes.device),
        samples=samples,
        alpha=alpha,
        seed=derive_seed(seed, "predict"),
    )
    right = int((labels.cpu() == kept.labels).sum())
    found = {
        "settings": {**(settings or {}), **made_by(), "data hash": data.hash},
        "accuracy": proportion(right, len(kept)).as_dict(),
        "abstained": int((labels == ABSTAIN).sum()),
        "predicted": labels.tolist(),
        "interval": "95 % (Wilson) over images; each answer is the class of most passes but for "
        "alpha; to abstain is not to be right",
    }
    console = Console(quiet=not processes.main, highlight=False)
    console.print(f"right on {proportion(right, len(kept))} %, abstained on {found['abstained']}")
    if processes.main:
        write_json(out / "predicted.json", found)
    return found
