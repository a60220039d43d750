"""``smoothinfer certify``: certificates of a data set, sequential or from a fixed vote."""

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from smoothinfer.cli.numbers import decimal_number, number_of, optional_number, whole_number
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
from smoothinfer.evaluation.rows import Rows
from smoothinfer.numerics.randomness import derive_seed
from smoothinfer.numerics.statistics import proportion
from smoothinfer.reporting.certified_figure import certified_curve
from smoothinfer.reporting.tables import norm_name
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.certification import (
    FLOATS,
    METHODS,
    THROUGH_L2,
    certifiable_sigma,
    predict_or_abstain,
    sorted_radii,
)
from smoothinfer.types import ABSTAIN

_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)  # of passes, for the curve of pA


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    add_sigma(parser)
    parser.add_argument(
        "--radii",
        nargs="+",
        help="radii to certify, such as 0 0.25 0.5, in pixel units; by default multiples of half "
        "of sigma",
    )
    parser.add_argument(
        "--norm",
        default="l2",
        choices=list(THROUGH_L2),
        help="of the radii; others than l2 follow from the L2 ball around theirs, the only one "
        "that is certified",
    )
    parser.add_argument(
        "--method",
        default="spending",
        choices=METHODS,
        help="stop when all radii are decided: spending by exact tests at known looks, betting and "
        "union by a confidence sequence; fixed: "
        "Cohen's, every image gets all passes and a radius of its own",
    )
    parser.add_argument(
        "--samples",
        type=whole_number,
        help="passes of an image, the most if not fixed; 100,000, or 100 to predict",
    )
    parser.add_argument("--selection", type=whole_number, help="passes that choose the class; 100")
    parser.add_argument(
        "--alpha", type=decimal_number, default=1e-3, help="probability of being wrong"
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
    if options.predict and (options.radii or options.selection is not None):
        raise InputError("--predict finds no radius: leave out --radii and --selection")
    data = images_of_split(options)
    settings = {**vars(options), "sha256": weights_hash(options.model), **made_by()}
    settings["data hash"] = data.hash
    how: dict[str, Any] = {"alpha": options.alpha}
    counts = {"samples": options.samples, "selection": options.selection}
    how |= {name: count for name, count in counts.items() if count is not None}
    model, out = load_model(options), Path(options.out)
    _check_noise(model, options)
    data = match_classes(data, class_names_of(model))
    if options.predict:
        content = predict_images(model, data, options.skip, options.seed, **how)
        name = "predicted.json"
    else:
        radii = [number_of("radius", each) for each in options.radii] if options.radii else None
        how |= {"method": options.method, "radii": radii, "norm": options.norm}
        content = certify_images(model, data, out, options.skip, options.seed, **how)
        name = "certified.json"
        del settings["versions"]  # today's: rows may have been taken over
    if Processes().main:
        write_json(out / name, {"settings": settings, **content})
    return 0


def _check_noise(model: nn.Module, options: Namespace) -> None:
    """Refuse a model without a theorem before any work, and name the option that gives it one."""
    try:
        certifiable_sigma(model)
    except InputError as error:
        if (optional_number("sigma", options.sigma) or 0) > 0:
            raise
        raise InputError(
            f"{error}; --sigma 0.25 puts such noise on the images of any model, though one that "
            "was not trained under it certifies next to nothing"
        ) from error


def certify_images(
    model: nn.Module,
    data: ImageData,
    out: Path,
    skip: int,
    seed: int,
    *,
    radii: Sequence[float] | None = None,
    norm: str = "l2",
    alpha: float = 1e-3,
    **options: Any,
) -> dict[str, Any]:
    """Certify every ``skip``-th image; print certified accuracies, and draw them into ``out``.

    Args:
        model: in eval mode.
        data: images and labels.
        out: folder of rows and ``certified.png``.
        skip, seed, options: see `certify_rows` and `certify`.
        radii: in ``norm``.
        norm: of the radii, see ``THROUGH_L2``.
        alpha: probability of a false certificate.
    """
    main = Processes().main
    factor = THROUGH_L2[norm](math.prod(data.shape))
    console = Terminal(quiet=not main)
    fixed = options.get("method") == "fixed"
    asked = None if radii is None else [factor * each for each in sorted_radii(radii)]
    place: dict[str, Any] = {"out": out / "rows", "progress": True, "tell": console.print}
    # A fixed vote gives each image a radius of its own, whichever are asked for.
    how = options | {"radii": None if fixed else asked, "alpha": alpha}
    rows = certify_rows(model, data, **place, skip=skip, seed=seed, **how)
    sigma = rows["sigma"][0].as_py()
    # Not rounded, nor divided and multiplied again: the tested radius is reached exactly.
    tested = [0.5 * sigma * k for k in range(9)] if asked is None else asked
    shown = [each / factor for each in tested] if radii is None else sorted_radii(radii)
    shares = certified_accuracy(rows, tested)
    console.print(f"certified accuracy, {len(rows)} images, 95 % interval")
    for at, share in zip(shown, shares, strict=True):
        console.print(f"radius {at:5.4g} ({norm}): {share} %")
    content = {
        "images": len(rows),
        MADE_BY: json.loads(rows.schema.metadata[MADE_BY.encode()]),
        "average radius": average_radius(rows) / factor if fixed else None,
        "norm": norm,
        "sigma": sigma,
        "alpha": alpha,
        "certified accuracy": [
            {"radius": at} | share.as_dict() for at, share in zip(shown, shares, strict=True)
        ],
        **_passes_and_abstentions(rows, fixed),
        "interval": "95 % (Wilson) over images; each certificate fails with probability alpha",
        "note": FLOATS,
    }
    if fixed:
        bounds = np.array(rows["lower"])
        content["pA at least"] = {str(at): float((bounds >= at).mean()) for at in _SHARES}
    _tell(console, content)
    if main:
        figure, about = out / "certified.png", f"{len(rows)} images of {data.name}"
        axis = f"{norm_name(norm)} radius, pixel units"
        drawn = None if fixed and radii is None else tested
        certified_curve(rows, figure, about, drawn, axis, factor)
    return content


def _passes_and_abstentions(rows: Rows, fixed: bool) -> dict[str, Any]:
    """Return how many passes images took, and why images abstained.

    A fixed vote does not tell whether more passes would help.
    """
    passes = np.array(rows["passes"])
    abstained = np.array(rows["predicted"]) == ABSTAIN
    decided = np.array(rows["decided"])
    want = {
        "abstained for want of passes": int((abstained & ~decided).sum()),
        "undecided": int((~decided).sum()),
    }
    return {
        "abstained": int(abstained.sum()),
        **({} if fixed else want),
        "passes of an image": {
            "mean": float(passes.mean()),
            "median": float(np.median(passes)),
            "most": int(passes.max()),
        },
    }


def _tell(console: Terminal, content: dict[str, Any]) -> None:
    if content["average radius"] is not None:
        console.print(f"average radius {content['average radius']:.4f} ({content['norm']})")
    used, images = content["passes of an image"], content["images"]
    console.print(
        f"passes of an image: {used['mean']:,.0f} on average, {used['median']:,.0f} is the median, "
        f"{used['most']:,} at most, those that choose the class among them"
    )
    told = f"abstained on {content['abstained']} of {images} images"
    if "undecided" in content:
        told += f", {content['abstained for want of passes']} of them for want of passes; a radius "
        told += f"was left undecided on {content['undecided']}"
    console.print(told)
    console.print(
        f"certificates under Gaussian noise on the pixels, sigma {content['sigma']:.4g} (pixels "
        f"from 0 to 1); each is false with probability {content['alpha']:g} at most"
    )
    if content["norm"] != "l2":
        console.print(
            f"note: the certificates are of the L2 ball around the {content['norm']} ball, which "
            "is far larger: there may be much more robustness than that"
        )
    console.print(f"note: {FLOATS}")


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
    console.print(f"right on {right} %, abstained on {abstained} of {len(kept)} images")
    return {
        "accuracy": right.as_dict(),
        "abstained": abstained,
        "predicted": labels.tolist(),
        "interval": "95 % (Wilson) over images; an answer differs from the class of most passes "
        "with probability alpha; abstaining counts as wrong",
    }
