"""Certificates of a data set, as rows: which images are certified, and within which radius."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from smoothinfer.data import ImageData
from smoothinfer.errors import InputError, plain_int
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.evaluation.keys import Key, digest_of_key, number_formats, unreadable_part
from smoothinfer.evaluation.makers import MADE_BY, maker
from smoothinfer.evaluation.reuse import check_shareable, reuse_lines
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.store import Store
from smoothinfer.numerics.randomness import derive_seed
from smoothinfer.numerics.statistics import Interval, proportion
from smoothinfer.runtime.modes import device_of
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.progress import track
from smoothinfer.smoothing.certifiable import certifiable_sigma
from smoothinfer.smoothing.certification import certify

_BATCH = 32  # images certified together: a killed run loses one batch
_COLUMNS = {
    **dict.fromkeys(("image", "label", "predicted", "passes"), pa.int64()),
    **dict.fromkeys(("sigma", "certified", "lower"), pa.float64()),
    **dict.fromkeys(("correct", "decided"), pa.bool_()),
}


def certify_rows(
    model: nn.Module,
    data: ImageData,
    *,
    out: str | Path | None = None,
    skip: int = 1,
    seed: int = 0,
    progress: bool = False,
    tell: Callable[[str], object] = lambda line: None,
    **options: Any,
) -> Rows:
    """Return a row for every ``skip``-th image: prediction, certified radius, passes used.

    The metadata of the rows name what made them.

    Args:
        model: see `certify`.
        data: images and labels.
        out: folder of Parquet shards; units that are stored there are not run again.
        skip: Cohen's protocol takes every 20th test image.
        seed: names the passes; every batch of images has passes of its own.
        progress: show a progress bar.
        tell: takes lines that say which certificates are taken over from ``out``, which are
            computed anew, and why.
        options: of `certify`: radii, method, samples, selection, alpha.

    Raises:
        InputError: see `certify`; or ``skip`` is less than 1, or stored rows are damaged.
    """
    plain_int("seed", seed)
    sigma, kept = certifiable_sigma(model), every(skip, data)
    settings = {"sigma": sigma, "seed": seed} | {k: v for k, v in options.items() if v is not None}
    common = _common_key(model, settings)
    keys: dict[str, Key] = {}
    batches: dict[str, torch.Tensor] = {}
    for rows in kept.split(_BATCH):
        part = data[rows]
        key = common | {"images": Fingerprint().of(rows, part.pixels, part.labels)}
        unit = f"certified-{int(rows[0]):06d}-{digest_of_key(key)}"
        keys[unit], batches[unit] = key, rows
    store, processes = Store(out), Processes()
    check_shareable(keys, processes.count)
    store.check(keys)
    for line in reuse_lines(store, keys):
        tell(line)
    mine = processes.share(list(keys))
    for unit in track(mine, "certifying", shown=progress and processes.main):
        if not store.has(unit):
            batch = _certify_batch(model, data, batches[unit], seed, options)
            columns = {name: [value] * len(batch["image"]) for name, value in settings.items()}
            about = {**maker(), "key": json.dumps(keys[unit])}
            store.write(unit, pa.table(batch | columns).replace_schema_metadata(about))
    processes.wait()
    made_by = json.dumps(store.makers(keys))
    rows = _checked(store.read(list(keys)), kept, out)
    return rows.replace_schema_metadata({MADE_BY: made_by})


def _checked(rows: Rows, kept: torch.Tensor, out: str | Path | None) -> Rows:
    """Refuse stored rows that this function did not write, whatever their checksums say."""
    for name, kind in _COLUMNS.items():
        columns = rows.column_names.count(name)
        if columns != 1 or rows.schema.field(name).type != kind or rows[name].null_count:
            raise InputError(f"the rows in {out} have a wrong column {name!r}: delete them")
    if rows["image"].to_pylist() != kept.tolist():
        raise InputError(f"the rows in {out} are of other images: delete them")
    return rows


def _common_key(model: nn.Module, settings: dict[str, Any]) -> Key:
    """Return the parts of the key that all batches share."""
    prints = Fingerprint()
    key = {"settings": prints.of(settings), "model": prints.of(model), "hooks": prints.of_torch()}
    prints.of(_certify_batch, certify)
    key |= {"package code": prints.package_code(), "user code": prints.user_code()}
    return key | {"precision": number_formats("auto", device_of(model))} | unreadable_part(prints)


def every(skip: int, data: ImageData) -> torch.Tensor:
    """Return the numbers of every ``skip``-th image of ``data``, from the first on.

    Raises:
        InputError: ``skip`` is less than 1.
    """
    if skip < 1:
        raise InputError(f"skip must be at least 1, not {skip}")
    return torch.arange(0, len(data), skip)


def _certify_batch(
    model: nn.Module, data: ImageData, rows: torch.Tensor, seed: int, options: dict[str, Any]
) -> dict[str, list[Any]]:
    part = data[rows]
    device = device_of(model, part.pixels)
    # Every batch has its own passes: shared ones would tie the statements about images.
    key = derive_seed(seed, "certify", int(rows[0]))
    if options.get("method") != "fixed":  # the rows ask for certified accuracy
        options = options | {"truth": part.labels.to(device)}
    found = certify(model, part.images.to(device), seed=key, **options)
    return {
        "image": rows.tolist(),
        "label": part.labels.tolist(),
        "predicted": found.labels.tolist(),
        "correct": (found.labels.cpu() == part.labels).tolist(),
        "certified": found.radii.tolist(),
        "lower": found.lower.tolist(),
        "passes": found.samples.tolist(),
        "decided": found.decided.tolist(),
    }


def certified_accuracy(rows: Rows, radii: Sequence[float]) -> list[Interval]:
    """Return, for each radius, the share of images that are right and certified within it.

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
