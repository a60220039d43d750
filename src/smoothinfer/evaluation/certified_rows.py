"""Certificates of a data set, as rows: which images are certain, and within which radius."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.progress import Progress
from torch import nn

from smoothinfer.data import ImageData
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import spelt_out
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.rows import Rows
from smoothinfer.runtime.modes import device_of
from smoothinfer.runtime.processes import Processes
from smoothinfer.numerics.randomness import derive_seed
from smoothinfer.numerics.statistics import Interval, proportion
from smoothinfer.smoothing.certification import certifiable_sigma, certify

_BATCH = 32  # images certified together: what is lost when a run is killed


def certify_rows(
    model: nn.Module,
    data: ImageData,
    *,
    out: str | Path | None = None,
    skip: int = 1,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> Rows:
    """Return a row for every ``skip``-th image: prediction, certified radius, passes used.

    Args:
        model: see `certify`.
        data: images and labels.
        out: folder of Parquet shards; work that is there already is not done again.
        skip: Cohen's protocol takes every 20th test image.
        seed: names the passes; every batch of images has passes of its own.
        progress: show a progress bar.
        options: of `certify`: samples, selection, alpha, radius.

    Raises:
        InputError: what `certify` refuses, or ``skip`` is less than 1.
    """
    sigma = certifiable_sigma(model)
    if skip < 1:
        raise InputError(f"skip must be at least 1, not {skip}")
    kept = torch.arange(0, len(data), skip)
    settings = {"sigma": sigma, "seed": seed} | {k: v for k, v in options.items() if v is not None}
    said = repr((sorted(settings.items()), spelt_out(model), data.hash, skip, len(data)))
    digest = hashlib.sha256(said.encode()).hexdigest()[:12]
    store, processes = Store(out), Processes()
    units = {f"certified-{int(rows[0]):06d}-{digest}": rows for rows in kept.split(_BATCH)}
    mine = processes.share(list(units))
    with Progress(disable=not (progress and processes.main), transient=True) as bar:
        for unit in bar.track(mine, description="certifying"):
            if not store.has(unit):
                store.write(unit, _rows(model, data, units[unit], seed, settings, options))
    processes.wait()
    return store.read(list(units))


def _rows(
    model: nn.Module,
    data: ImageData,
    rows: torch.Tensor,
    seed: int,
    settings: dict[str, Any],
    options: dict[str, Any],
) -> Rows:
    part = data[rows]
    device = device_of(model, part.pixels)
    # Passes of their own for each batch: shared ones would tie the statements about images.
    key = derive_seed(seed, "certify", int(rows[0]))
    found = certify(model, part.images.to(device), seed=key, **options)
    columns: dict[str, list[Any]] = {
        "image": rows.tolist(),
        "label": part.labels.tolist(),
        "predicted": found.labels.tolist(),
        "correct": (found.labels.cpu() == part.labels).tolist(),
        "certified": found.radii.tolist(),
        "lower": found.lower.tolist(),
        "passes": found.samples.tolist(),
    }
    return pa.table(columns | {name: [value] * len(rows) for name, value in settings.items()})


def certified_accuracy(rows: Rows, radii: Sequence[float]) -> list[Interval]:
    """Return, for each radius, the share of images that are right and certain within it.

    >>> rows = pa.table({"correct": [True, True, False], "certified": [0.1, 0.3, 0.5]})
    >>> [round(share.value, 2) for share in certified_accuracy(rows, [0.0, 0.2])]
    [0.67, 0.33]
    """
    right = torch.tensor(rows["correct"].to_pylist())
    reached = torch.tensor(rows["certified"].to_pylist(), dtype=torch.float64)
    count = partial(proportion, images=len(rows))
    return [count(int((right & (reached >= radius)).sum())) for radius in radii]


def average_radius(rows: Rows) -> float:
    """Return the mean certified radius, 0 for images that are wrong or uncertain (ACR)."""
    right = torch.tensor(rows["correct"].to_pylist())
    return float((torch.tensor(rows["certified"].to_pylist()) * right).mean())
