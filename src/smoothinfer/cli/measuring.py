"""``evaluate``, ``attack``, ``calibrate``, ``audit`` and ``certify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from smoothinfer.attacks import ATTACKS
from smoothinfer.workflows.calibrate import calibrate
from smoothinfer.workflows.certify import certify_run, predict_run
from smoothinfer.checkpoints import load
from smoothinfer.cli.command import Command
from smoothinfer.cli.options import (
    ball_of,
    ball_options,
    hash_of,
    measured,
    model_options,
    optional,
    seen_images,
    sigma_option,
    sigmas_of,
)
from smoothinfer.data import load_data
from smoothinfer.errors import InputError
from smoothinfer.workflows.evaluate import audit_run, measure
from smoothinfer.noise.additive import UNITS
from smoothinfer.engine.voting import RULES


def _evaluate_options(parser: ArgumentParser) -> None:
    model_options(parser)
    parser.add_argument(
        "--attack",
        nargs="+",
        default=["pgd"],
        help=f"one or more of {', '.join(ATTACKS)}, with options as in 'pgd(steps=20, draws=8)'; "
        "'none' measures clean images only",
    )
    ball_options(parser)
    parser.add_argument(
        "--sigma",
        nargs="+",
        help="Gaussian input noise, such as 0.06 or 16/255; by default the model's own input noise",
    )
    parser.add_argument(
        "--units",
        choices=list(UNITS),
        help="of sigma: pixel (the default), or normalised, as in the paper",
    )
    parser.add_argument(
        "--rule",
        nargs="+",
        default=["prediction"],
        help=f"voting rules: {', '.join(RULES)}, or ranks:1,0.3",
    )
    parser.add_argument(
        "--samples",
        nargs="+",
        type=int,
        default=[512],
        help="numbers of passes; all come out of one run of the largest",
    )
    parser.add_argument(
        "--split",
        default="test",
        help="train, test, or validation: the training images that the model's own training held "
        "out, where settings such as sigma should be chosen",
    )
    parser.add_argument("--limit", type=int, help="use the first so many images only")
    parser.add_argument("--seed", type=int, default=0, help="names the streams")
    parser.add_argument("--out", required=True, help="folder of rows/, summary.json, table.md")


def _attack(given: Namespace) -> int:
    return _evaluate(given, examples=True)


def _evaluate(given: Namespace, examples: bool = False) -> int:
    sigmas = sigmas_of(given)
    measure(**measured(given), sigmas=sigmas, samples=given.samples, examples=examples)
    return 0


def _calibrate_options(parser: ArgumentParser) -> None:
    _evaluate_options(parser)
    parser.set_defaults({"split": "validation", "sigma": ["0", "0.03", "0.06", "0.09", "0.12"]})
    parser.set_defaults({"rule": ["prediction", "weighted", "soft"]})


def _calibrate(given: Namespace) -> int:
    if len(given.samples) > 1:
        raise InputError("calibration is for one number of passes: give one --samples")
    calibrate(**measured(given), sigmas=sigmas_of(given) or [], samples=given.samples[0])
    return 0


def _audit_options(parser: ArgumentParser) -> None:
    model_options(parser)
    parser.add_argument("--quick", action="store_true", help="less work: minutes for ResNet-20")
    ball_options(parser)
    sigma_option(parser)
    parser.add_argument("--rule", help="voting rule; prediction, or that of a SmoothedClassifier")
    parser.add_argument("--samples", type=int, help="most passes of a vote; 64 if quick, else 512")
    parser.add_argument(
        "--limit", type=int, help="use the first so many images; 300 if quick, else 1,000"
    )
    parser.add_argument("--seed", type=int, default=0, help="names the streams")
    parser.add_argument("--out", required=True, help="folder of audit.html, audit.md, audit.json")


def _audit(given: Namespace) -> int:
    data = load_data(given.data, "test", given.limit or (300 if given.quick else 1000))
    return audit_run(
        load(given.model),
        data,
        Path(given.out),
        ball=ball_of(given),
        sigma=optional(given, "sigma"),
        rule=given.rule,
        samples=given.samples,
        quick=given.quick,
        seed=given.seed,
        seen=seen_images(given),
        settings=given.as_dict(),
    )


def _certify_options(parser: ArgumentParser) -> None:
    model_options(parser)
    sigma_option(parser)
    parser.add_argument(
        "--samples", type=int, help="passes of an image; 100,000, or 100 to predict"
    )
    parser.add_argument("--selection", type=int, help="passes that choose the class; 100")
    parser.add_argument("--alpha", type=float, default=1e-3, help="probability of being wrong")
    parser.add_argument(
        "--radius",
        help="ask only whether the vote holds within this L2 radius, with no more passes than that "
        "takes",
    )
    parser.add_argument(
        "--predict",
        action="store_true",
        help="no radius: predict, and abstain where the lead of the first class may be chance",
    )
    parser.add_argument("--skip", type=int, default=1, help="take every so many images, e.g. 20")
    parser.add_argument("--limit", type=int, help="use the first so many images only")
    parser.add_argument("--seed", type=int, default=0, help="names the passes")
    parser.add_argument("--out", required=True, help="folder of rows and figures")


def _certify(given: Namespace) -> int:
    if given.predict and (given.radius or given.selection is not None):
        raise InputError("--predict seeks no radius: leave out --radius and --selection")
    counts = {"samples": given.samples, "selection": given.selection}
    asked: dict[str, Any] = {name: n for name, n in counts.items() if n is not None}
    asked |= {"alpha": given.alpha, "skip": given.skip, "seed": given.seed}
    asked |= {"settings": given.as_dict() | {"sha256": hash_of(given.model)}}
    asked["sigma"] = optional(given, "sigma")
    if not given.predict:
        asked["radius"] = optional(given, "radius")
    run = predict_run if given.predict else certify_run
    run(load(given.model), load_data(given.data, "test", given.limit), Path(given.out), **asked)
    return 0


COMMANDS = {
    "evaluate": Command(
        "Measure a model, clean and attacked, in one pass and smoothed.",
        _evaluate_options,
        _evaluate,
    ),
    "attack": Command(
        "Measure a model like evaluate, and keep the adversarial examples.",
        _evaluate_options,
        _attack,
    ),
    "calibrate": Command(
        "Choose sigma and the voting rule on the images that training held out.",
        _calibrate_options,
        _calibrate,
    ),
    "audit": Command(
        "Check whether a model's robustness is real: thirteen checks, one page. Exit status 1 "
        "if one fires.",
        _audit_options,
        _audit,
    ),
    "certify": Command(
        "Certify images: a radius within which no attack changes the vote.",
        _certify_options,
        _certify,
    ),
}
