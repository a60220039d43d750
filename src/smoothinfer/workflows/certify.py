"""``smoothinfer certify``: Cohen's certificates and predictions of a data set."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.cli.numbers import decimal_number, optional_number, whole_number
from smoothinfer.cli.options import (
    add_limit,
    add_model,
    add_seed,
    add_sigma,
    add_split,
    images_of_split,
    load_model,
    weights_hash,
)
from smoothinfer.data import ImageData, class_names_of, match_classes
from smoothinfer.errors import InputError
from smoothinfer.evaluation.certified_rows import (
    average_radius,
    certified_accuracy,
    certify_rows,
    every,
)
from smoothinfer.evaluation.makers import MADE_BY
from smoothinfer.numerics.randomness import derive_seed
from smoothinfer.numerics.statistics import proportion
from smoothinfer.reporting.figures import certified_curve
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.certification import FLOATS, certifiable_sigma, predict_or_abstain
from smoothinfer.types import ABSTAIN


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    add_sigma(parser)
    parser.add_argument(
        "--samples", type=whole_number, help="passes of an image; 100,000, or 100 to predict"
    )
    parser.add_argument("--selection", type=whole_number, help="passes that choose the class; 100")
    parser.add_argument(
        "--alpha", type=decimal_number, default=1e-3, help="probability of being wrong"
    )
    parser.add_argument(
        "--radius",
        help="test only whether the vote holds within this L2 radius, with no more passes than "
        "that takes",
    )
    parser.add_argument(
        "--predict",
        action="store_true",
        help="no radius: predict, and abstain where the lead of the first class may be chance",
    )
    parser.add_argument(
        "--skip", type=whole_number, default=1, help="take every so many images, e.g. 20"
    )
    add_split(parser)
    add_limit(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="folder of rows and figures")


def run(options: Namespace) -> int:
    if options.predict and (options.radius or options.selection is not None):
        raise InputError("--predict finds no radius: leave out --radius and --selection")
    data = images_of_split(options)
    settings = {**vars(options), "sha256": weights_hash(options.model), **made_by()}
    settings["data hash"] = data.hash
    how: dict[str, Any] = {"alpha": options.alpha}
    counts = {"samples": options.samples, "selection": options.selection}
    how |= {name: count for name, count in counts.items() if count is not None}
    model, out = load_model(options), Path(options.out)
    data = match_classes(data, class_names_of(model))
    if options.predict:
        content = predict_images(model, data, options.skip, options.seed, **how)
        name = "predicted.json"
    else:
        radius = optional_number("radius", options.radius)
        content = certify_images(model, data, out, options.skip, options.seed, radius, **how)
        name = "certified.json"
        del settings["versions"]  # today's: rows may have been taken over
    if Processes().main:
        write_json(out / name, {"settings": settings, **content})
    return 0


def certify_images(
    model: nn.Module,
    data: ImageData,
    out: Path,
    skip: int,
    seed: int,
    radius: float | None,
    **options: Any,
) -> dict[str, Any]:
    """Certify every ``skip``-th image; print certified accuracies, and draw them into ``out``.

    Args:
        model: in eval mode.
        data: images and labels.
        out: folder of rows and, where no radius is tested, ``certified.png``.
        skip, seed, radius, options: see `certify_rows` and `certify`.
    """
    main = Processes().main
    how: dict[str, Any] = {"skip": skip, "seed": seed, "radius": radius}
    console = Terminal(quiet=not main)
    place: dict[str, Any] = {"out": out / "rows", "progress": True, "tell": console.print}
    rows = certify_rows(model, data, **place, **how, **options)
    sigma = rows["sigma"][0].as_py()
    # Not rounded: a certificate at exactly the tested radius reaches it.
    radii = [0.5 * sigma * k for k in range(9)] if radius is None else [radius]
    shares = certified_accuracy(rows, radii)
    for at, share in zip(radii, shares, strict=True):
        console.print(f"radius {at:5.3f}: {share} %")
    abstained = rows["predicted"].to_pylist().count(ABSTAIN)
    mean = average_radius(rows) if radius is None else None  # one tested radius has no mean
    text = "" if mean is None else f"average radius {mean:.4f}, "
    console.print(f"{text}abstained on {abstained} of {len(rows)} images")
    console.print(f"note: {FLOATS}")
    if main and radius is None:
        certified_curve(rows, out / "certified.png", f"{len(rows)} images of {data.name}")
    return {
        "images": len(rows),
        MADE_BY: json.loads(rows.schema.metadata[MADE_BY.encode()]),
        "abstained": abstained,
        "average radius": mean,
        "certified accuracy": [
            {"radius": at} | share.as_dict() for at, share in zip(radii, shares, strict=True)
        ],
        "interval": "95 % (Wilson) over images; each certificate fails with probability alpha",
        "note": FLOATS,
    }


def predict_images(
    model: nn.Module, data: ImageData, skip: int, seed: int, **options: Any
) -> dict[str, Any]:
    """Predict or abstain on every ``skip``-th image; see `predict_or_abstain`."""
    processes = Processes()
    certifiable_sigma(model)
    kept = data[every(skip, data)]
    key = derive_seed(seed, "predict")
    labels = predict_or_abstain(model, kept.images.to(processes.device), seed=key, **options)
    right = proportion(int((labels.cpu() == kept.labels).sum()), len(kept))
    abstained = int((labels == ABSTAIN).sum())
    console = Terminal(quiet=not processes.main)
    console.print(f"right on {right} %, abstained on {abstained}")
    return {
        "accuracy": right.as_dict(),
        "abstained": abstained,
        "predicted": labels.tolist(),
        "interval": "95 % (Wilson) over images; an answer differs from the class of most passes "
        "with probability alpha; abstaining counts as wrong",
    }
