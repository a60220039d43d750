"""``smoothinfer calibrate``: choose input noise and rule on images held out from training."""

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smoothinfer.cli.numbers import number_of
from smoothinfer.cli.options import weights_hash
from smoothinfer.data import OWN_SPLIT, VALIDATION
from smoothinfer.errors import InputError
from smoothinfer.evaluation.rows import CLEAN, Rows, rows_of, summarise
from smoothinfer.numerics.statistics import mean_of
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.abstention import Abstention
from smoothinfer.workflows import evaluate

_RISKS = (0.01, 0.02, 0.05, 0.1, 0.2)
_WARNINGS = {
    "test": "chosen on test images: figures on these images are no longer those of a test",
    "train": "chosen on images that the model was trained on, which it knows better than others",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command: those of ``evaluate`` with other defaults."""
    evaluate.add_arguments(parser)
    parser.set_defaults(split=VALIDATION, sigma=["0", "0.03", "0.06", "0.09", "0.12"])
    parser.set_defaults(rule=["prediction", "weighted", "soft"])


def run(options: Namespace) -> int:
    """Measure every sigma and rule, and choose the pair with the best accuracy under attack.

    Under several attacks the worst of them counts. ``calibration.json`` holds the choice, its
    accuracies with intervals, the number of pairs, and warnings: when the best sigma lies at the
    edge of the grid, or when the images do not tell other pairs apart from the best.

    Raises:
        InputError: there is no attack, fewer than two sigmas, or several numbers of passes.
    """
    if len(options.samples) > 1:
        raise InputError("calibration is for one number of passes: give one --samples")
    grid = sorted({number_of("sigma", each) for each in options.sigma})
    if len(grid) < 2 or set(evaluate.attacks_of(options)) == {"none"}:
        raise InputError("calibration needs at least two sigmas and an attack")
    rows = evaluate.evaluate_model(options)
    if rows is None:  # only the plan was asked for
        return 0
    chosen = choose_setting(rows, grid)
    if warning := _WARNINGS.get(options.split.removeprefix(OWN_SPLIT)):
        chosen["warnings"].append(warning)
    units = options.units or "pixel"
    images = chosen["attacked"]["images"]
    if Processes().main:
        how = {"images": images, "units": units, "samples": options.samples[0]}
        how["radius"] = max(rows["radius"].to_pylist())
        how |= {"stop": options.stop, "sha256": weights_hash(options.model)}
        how["abstention"] = abstention_of(rows, chosen["sigma"], chosen["rule"])
        write_json(Path(options.out) / "calibration.json", how | chosen)
    console = Terminal(quiet=not Processes().main)
    for warning in chosen["warnings"]:
        console.print(f"warning: {warning}", style="yellow")
    worst = chosen["attacked"]
    console.print(
        f"sigma {chosen['sigma']:g} ({units}), rule {chosen['rule']}: {100 * worst['value']:.1f} % "
        f"({100 * worst['low']:.1f}-{100 * worst['high']:.1f}) under {chosen['attack']}, "
        f"on {images} images, the best of {chosen['pairs']} pairs and so a little optimistic"
    )
    return 0


def choose_setting(rows: Rows, grid: Sequence[float]) -> dict[str, Any]:
    """Return the sigma and rule with the best accuracy under the worst attack, and warnings."""
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
    right = {key: _correct(rows, entry["description"]) for key, entry in worst.items()}
    close = [key for key in worst if key != best and not _is_better(right[best], right[key])]
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


def abstention_of(rows: Rows, sigma: float, rule: str) -> dict[str, Any]:
    """Return, for each risk, the least share of passes of a safe answer, and the coverage curve.

    Of clean images; a risk that these images cannot show at any share has none.
    """
    rows = rows_of(rows, {"attack": CLEAN, "sigma": sigma, "rule": rule})
    learned = Abstention(np.array(rows["share"]), np.array(rows["correct"], dtype=bool))
    shares: dict[str, float | None] = {}
    for risk in _RISKS:
        try:
            shares[str(risk)] = learned.threshold(risk)
        except InputError:
            shares[str(risk)] = None
    note = "learned on the images that chose sigma and rule, so a little optimistic"
    about = {"least share": shares, "confidence": learned.confidence, "note": note}
    return about | {"curve": learned.curve()}


def _correct(rows: Rows, setting: Mapping[str, Any]) -> np.ndarray:
    """Return whether the verdict of ``setting`` is correct on each image, in their order."""
    rows = rows_of(rows, {name: setting[name] for name in ("attack", "sigma", "rule")})
    return rows.sort_by("image")["correct"].to_numpy().astype(float)


def _is_better(best: np.ndarray, other: np.ndarray) -> bool:
    difference = best - other
    return mean_of(float(difference.mean()), float(difference.std()), len(difference)).low > 0
