"""``evaluate``, ``attack``, ``calibrate``, ``audit`` and ``certify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from smoothinfer.appendix import appendix
from smoothinfer.attacks import ATTACKS
from smoothinfer.calibrate import calibrate
from smoothinfer.certificates import certify_run, predict_run
from smoothinfer.checkpoints import load
from smoothinfer.cli.command import Command
from smoothinfer.cli.reading import (
    DATA_HELP,
    ball_of,
    ball_options,
    hash_of,
    measured,
    model_options,
    optional,
    recipe_file,
    seen_images,
    sigma_option,
    sigmas_of,
)
from smoothinfer.components import Component
from smoothinfer.configuration import SCALES
from smoothinfer.data import load_data
from smoothinfer.errors import InputError
from smoothinfer.experiments import experiments
from smoothinfer.measure import attack_of, audit_run, measure, under_noise
from smoothinfer.noise.additive import UNITS
from smoothinfer.numerics.processes import Processes
from smoothinfer.pictures import PICTURES, picture
from smoothinfer.reporting.report import write_report
from smoothinfer.reproduction import ALL, APPENDIX, reproduce, reproduce_all
from smoothinfer.smoothing.voting import RULES
from smoothinfer.sweeps import describe, load_sweep, run_sweep


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


def _sweep_options(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a file with models, data, sigma, attacks, rules, samples")
    parser.add_argument("--out", required=True, help="folder of rows/, crafted/, table.parquet")
    parser.add_argument("--data", help="instead of the recipe's: " + DATA_HELP)
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to the recipe"
    )
    parser.add_argument("--scale", default="short", choices=list(SCALES), help="size of the sweep")
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="do the I-th of N parts, from 0, as in a job array; the folder may be shared or not",
    )
    parser.add_argument(
        "--merge", nargs="+", default=[], help="folders of other parts, to take their rows over"
    )
    parser.add_argument("--plan", action="store_true", help="say what it costs, and stop")


def _sweep(given: Namespace) -> int:
    changes = [*given.set, *([f"data={given.data}"] if given.data else [])]
    recipe = load_sweep(recipe_file(given), changes, given.scale)
    Console().print(describe(recipe), markup=False, highlight=False)
    number, slash, parts = given.shard.partition("/")
    if not (slash and number.isdigit() and parts.isdigit()):
        raise InputError(f"--shard must be I/N, such as 0/4, not {given.shard!r}")
    shard = int(number), int(parts)
    run_sweep(recipe, given.out, shard=shard, merge=given.merge, only_plan=given.plan)
    return 0


def _picture_options(parser: ArgumentParser) -> None:
    parser.add_argument("kind", choices=list(PICTURES), help="what to draw")
    model_options(parser)
    parser.add_argument("--attack", default="pgd", help="as for evaluate")
    ball_options(parser)
    sigma_option(parser)
    parser.add_argument("--limit", type=int, default=200, help="use the first so many images")
    parser.add_argument("--seed", type=int, default=0, help="names the streams")
    parser.add_argument("--out", required=True, help="folder of KIND.png and KIND.json")


def _picture(given: Namespace) -> int:
    model, sigma = load(given.model).to(Processes().device), optional(given, "sigma")
    model = model if sigma is None else under_noise(model, sigma)
    data = load_data(given.data, "test", given.limit)
    attack = attack_of(Component.of(given.attack))
    picture(given.kind, model, data, attack, ball_of(given), given.out, given.seed)
    print(Path(given.out) / f"{given.kind}.png")
    return 0


def _reproduce_options(parser: ArgumentParser) -> None:
    names = ", ".join([*experiments(), APPENDIX])
    parser.add_argument("name", help=f"one of {names} (which uses the digits), or {ALL}")
    parser.add_argument("--data", help=f"images like those the models saw: {DATA_HELP}")
    parser.add_argument("--out", required=True, help="folder of rows, figures, report and table")
    parser.add_argument("--scale", default="short", choices=list(SCALES), help="how much work")
    parser.add_argument(
        "--runs", default="runs", help="folder of trained models, called as their recipes"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="changes to every sweep"
    )
    parser.add_argument(
        "--reuse", help="folder of other experiments: what they measured alike is copied"
    )


def _reproduce(given: Namespace) -> int:
    if given.reuse is not None and given.name in (ALL, APPENDIX):
        raise InputError(f"{given.name} takes no --reuse: leave it out")
    if given.name == APPENDIX:
        appendix(given.out)
        print((Path(given.out) / f"{APPENDIX}.md").read_text())
        return 0
    if given.data is None:
        raise InputError(
            f"{given.name} needs --data, images like those its models were trained on, such as "
            "uoft-cs/cifar10 for the shipped ones"
        )
    options = {name: given[name] for name in ("data", "scale", "runs")} | {"changes": given.set}
    if given.name == ALL:
        print(reproduce_all(given.out, **options))
        return 0
    path = reproduce(given.name, given.out, reuse=given.reuse, **options)
    print(path.read_text())
    return 0


def _report_options(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folders", nargs="+", help="folders of evaluate, attack, sweep, audit, certify or train"
    )
    parser.add_argument("--out", required=True, help="folder of index.html, report.md, tables.tex")
    parser.add_argument("--title", default="Results", help="of the page")


def _report(given: Namespace) -> int:
    print(write_report(given.folders, given.out, given.title))
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
    "sweep": Command(
        "Measure a grid of settings; resumed, shared out, merged.",
        _sweep_options,
        _sweep,
    ),
    "picture": Command(
        "Draw what passes cost, what an attack does to votes, or what gradients look like.",
        _picture_options,
        _picture,
    ),
    "reproduce": Command(
        "Repeat a table or figure of the paper, its numbers beside ours.",
        _reproduce_options,
        _reproduce,
    ),
    "report": Command(
        "Turn results into one page, Markdown, LaTeX and figures.",
        _report_options,
        _report,
    ),
    "certify": Command(
        "Certify images: a radius within which no attack changes the vote.",
        _certify_options,
        _certify,
    ),
}
