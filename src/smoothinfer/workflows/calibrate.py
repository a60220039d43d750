"""``smoothinfer calibrate``: choose input noise and rule on images held out from training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from torch import nn

from smoothinfer.attacks import Attack
from smoothinfer.data import ImageData
from smoothinfer.errors import InputError
from smoothinfer.evaluation import summarise
from smoothinfer.evaluation.rows import Rows
from smoothinfer.runtime.files import write_json
from smoothinfer.workflows.evaluate import measure
from smoothinfer.numerics.balls import Ball
from smoothinfer.runtime.processes import Processes
from smoothinfer.numerics.statistics import mean_of

_ON = {
    "test": "chosen on test images: figures on these images are no longer those of a test",
    "train": "chosen on images that the model was trained on, which it knows better than others",
}


def calibrate(
    model: nn.Module,
    name: str,
    data: ImageData,
    attacks: Mapping[str, Attack],
    ball: Ball,
    out: Path,
    *,
    sigmas: Sequence[float],
    units: str = "pixel",
    rules: Sequence[str] = ("prediction",),
    samples: int = 512,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure every sigma and rule, and choose the pair with the best accuracy under attack.

    Under several attacks the worst of them counts. What ``calibration.json`` holds is returned: the
    choice, its measured accuracies with intervals, out of how many pairs, and warnings, as when
    the best sigma lies at the edge of the grid, or when other pairs are not told apart from the
    best: their differences, image by image, have intervals that contain zero.

    Args:
        model, name, attacks, ball, units, rules, seed, settings: see `measure`.
        data: images that training did not see; the test set is for the final figure.
        out: folder of rows, summary and ``calibration.json``.
        sigmas: the grid, at least two values.
        samples: number of passes.

    Raises:
        InputError: there is no attack, or fewer than two sigmas; or what `measure` refuses.
    """
    grid = sorted(set(sigmas))
    if len(grid) < 2 or not attacks:
        raise InputError("calibration needs at least two sigmas and an attack")
    rows = measure(
        model,
        name,
        data,
        attacks,
        ball,
        out,
        sigmas=grid,
        units=units,
        rules=rules,
        samples=[samples],
        seed=seed,
        settings=settings,
    )
    chosen = _choose(rows, grid)
    if warned := _ON.get((settings or {}).get("split", "")):
        chosen["warnings"].append(warned)
    if Processes().main:
        how = {"images": len(data), "units": units, "samples": samples, "radius": ball.radius}
        write_json(out / "calibration.json", how | chosen)
    console = Console(quiet=not Processes().main)
    for warning in chosen["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False)
    worst = chosen["attacked"]
    console.print(
        f"sigma {chosen['sigma']:g} ({units}), rule {chosen['rule']}: {100 * worst['value']:.1f} % "
        f"({100 * worst['low']:.1f}-{100 * worst['high']:.1f}) under {chosen['attack']}, "
        f"on {len(data)} images, the best of {chosen['pairs']} pairs and so a little optimistic",
        highlight=False,
    )
    return chosen


def _choose(rows: Rows, grid: Sequence[float]) -> dict[str, Any]:
    worst: dict[tuple[float, str], dict[str, Any]] = {}
    for entry in summarise(rows):
        key = (entry["description"]["sigma"], entry["description"]["rule"])
        before = worst.get(key)
        if before is None or entry["attacked"]["value"] < before["attacked"]["value"]:
            worst[key] = entry
    # Of equals the least noise: it costs the least clean accuracy.
    best = max(worst, key=lambda key: (worst[key]["attacked"]["value"], -key[0]))
    found, warnings = worst[best], []
    if best[0] == grid[-1] or (best[0] == grid[0] and grid[0] > 0):
        side = "largest" if best[0] == grid[-1] else "smallest"
        warnings.append(f"the best sigma {best[0]:g} is the {side} of the grid: widen it")
    right = {key: _right(rows, entry["description"]) for key, entry in worst.items()}
    close = [key for key in worst if key != best and not _told_apart(right[best], right[key])]
    if close:
        named = ", ".join(f"{sigma:g} {rule}" for sigma, rule in sorted(close))
        warnings.append(f"not told apart from it on these images: {named}")
    return {
        "sigma": best[0],
        "rule": best[1],
        "attack": found["description"]["attack"],
        "clean": found["clean"],
        "attacked": found["attacked"],
        "pairs": len(worst),
        "warnings": warnings,
    }


def _right(rows: Rows, setting: Mapping[str, Any]) -> np.ndarray:
    """Return which images the verdicts of ``setting`` are right on, in their order."""
    for name in ("attack", "sigma", "rule"):
        rows = rows.filter(pc.equal(rows[name], setting[name]))
    return rows.sort_by("image")["correct"].to_numpy().astype(float)


def _told_apart(best: np.ndarray, other: np.ndarray) -> bool:
    apart = best - other
    return mean_of(float(apart.mean()), float(apart.std()), len(apart)).low > 0
