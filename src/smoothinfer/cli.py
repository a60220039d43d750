"""The command line: ``smoothinfer demo | train | evaluate | attack | calibrate | audit | ...``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from smoothinfer.attacks import ATTACKS, Attack
from smoothinfer.calibrate import calibrate
from smoothinfer.checkpoints import find_checkpoint, load, models, read_card, shipped
from smoothinfer.components import Component, number
from smoothinfer.data import DATASETS, ImageData, hold_out, load_data
from smoothinfer.demo import demo
from smoothinfer.errors import InputError, choose
from smoothinfer.measure import audit_run, measure, under_noise
from smoothinfer.noise.additive import UNITS
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.numerics.precision import keep_heap_warm
from smoothinfer.numerics.processes import Processes
from smoothinfer.recipes import load_recipe, recipe_from
from smoothinfer.runs import train_run
from smoothinfer.smoothing.voting import RULES
from smoothinfer.types import Images

_ABOUT = (
    "Make image classifiers more robust to adversarial examples by smoothed inference: many noisy "
    "passes, put to the vote. Begin with 'smoothinfer demo'."
)
DATA_HELP = (
    f"a data set: {', '.join(DATASETS)}; a .npz file with x_train, y_train, x_test, y_test; a "
    "folder of Parquet files or of images in train/CLASS/; or a name on the Hugging Face hub"
)
MODEL_HELP = (
    "a run folder, a .safetensors checkpoint, package.module:factory, or a shipped model "
    "('smoothinfer models' lists them)"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser, commands = _parser()
    given = parser.parse_args(list(sys.argv[1:]) if arguments is None else list(arguments))
    keep_heap_warm()
    sys.path.insert(0, "")  # package.module:factory is looked up here first
    try:
        return commands[given.subcommand](given[given.subcommand])
    except InputError as error:
        Console(stderr=True, highlight=False).print(f"error: {error}", markup=False, style="red")
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on from here")
        return 130


def _parser() -> tuple[ArgumentParser, dict[str, Callable[[Namespace], int]]]:
    parser = ArgumentParser(prog="smoothinfer", description=_ABOUT, version=version("smoothinfer"))
    branches = parser.add_subcommands()
    commands: dict[str, Callable[[Namespace], int]] = {}
    for name, (about, fill, command) in _COMMANDS.items():
        branch = ArgumentParser(description=about)
        fill(branch)
        branches.add_subcommand(name, branch, help=about)
        commands[name] = command
    return parser, commands


def _demo_options(parser: ArgumentParser) -> None:
    parser.add_argument("--out", default="demo", help="folder of the report")
    parser.add_argument("--seed", type=int, default=0, help="names every random stream")


def _demo(given: Namespace) -> int:
    demo(Path(given.out), given.seed)
    return 0


def _train_options(parser: ArgumentParser) -> None:
    parser.add_argument("recipe", help="a recipe file, or a shipped one such as cifar10/cni-w.yaml")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder of the run; the same one resumes it")
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="changes to the recipe, e.g. epochs=3 attack.steps=10 ball.radius=4/255",
    )
    parser.add_argument("--limit", type=int, help="use the first so many training images only")


def _train(given: Namespace) -> int:
    path = Path(given.recipe)
    found = path if path.exists() else shipped("recipes", str(path).removeprefix("recipes/"))
    recipe = load_recipe(found, given.set)
    recipe.training(), recipe.build_loss()
    data = load_data(given.data, "train", given.limit)
    console = Console()
    console.print(yaml.safe_dump(recipe.written(), sort_keys=False), markup=False, highlight=False)
    course = train_run(recipe, data, given.out)
    last = course.epochs[-1]
    console.print(f"{given.out}: {len(course.epochs)} epochs, last {last}", highlight=False)
    return 0


def _evaluate_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument(
        "--attack",
        nargs="+",
        default=["pgd"],
        help=f"one or more of {', '.join(ATTACKS)}, with options as in 'pgd(steps=20, draws=8)'; "
        "'none' measures clean images only",
    )
    parser.add_argument(
        "--radius",
        help="of the attack, in pixel units; by default 8/255 (linf) or 0.5 (l2)",
    )
    parser.add_argument("--norm", default="linf", choices=list(BALLS), help="of the ball")
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
    parser.add_argument("--out", required=True, help="folder of rows/, summary.json, settings.json")


def _attack(given: Namespace) -> int:
    return _evaluate(given, examples=True)


def _evaluate(given: Namespace, examples: bool = False) -> int:
    sigmas = _sigmas(given)
    measure(**_measured(given), sigmas=sigmas, samples=given.samples, examples=examples)
    return 0


def _sigmas(given: Namespace) -> list[float] | None:
    if given.units and not given.sigma:
        raise InputError("--units says in what --sigma is measured: give --sigma too")
    return [_number("sigma", s) for s in given.sigma] if given.sigma else None


def _measured(given: Namespace) -> dict[str, Any]:
    """Return what evaluate, attack and calibrate are all asked for."""
    attacks = {} if given.attack == ["none"] else {a: Component.of(a) for a in given.attack}
    return {
        "model": load(given.model),
        "name": str(given.model),
        "data": _images(given),
        "attacks": {name: _bound(component) for name, component in attacks.items()},
        "ball": _ball(given),
        "out": Path(given.out),
        "units": given.units or "pixel",
        "rules": given.rule,
        "seed": given.seed,
        "settings": given.as_dict(),
    }


def _ball(given: Namespace) -> Ball:
    return BALLS[given.norm](_number("radius", given.radius or _RADII[given.norm]))


def _bound(component: Component) -> Attack:
    """Return the attack; the source of a transfer is a model by name, with a sigma of its own."""
    options = dict(component.options)
    if component.name == "transfer":
        if not isinstance(options.get("source"), str):
            raise InputError("transfer needs a source: 'transfer(source=\"runs/other\", steps=7)'")
        sigma = options.pop("sigma", None)
        source = load(options["source"]).to(Processes().device)
        options["source"] = source if sigma is None else under_noise(source, float(sigma))
        if isinstance(options.get("attack"), str):
            options["attack"] = choose("attack", ATTACKS, options["attack"])
    return Component(component.name, options).bind("attack", ATTACKS)


def _calibrate_options(parser: ArgumentParser) -> None:
    _evaluate_options(parser)
    parser.set_defaults({"split": "validation", "sigma": ["0", "0.03", "0.06", "0.09", "0.12"]})
    parser.set_defaults({"rule": ["prediction", "weighted", "soft"]})


def _calibrate(given: Namespace) -> int:
    if len(given.samples) > 1:
        raise InputError("calibration is for one number of passes: give one --samples")
    calibrate(**_measured(given), sigmas=_sigmas(given) or [], samples=given.samples[0])
    return 0


def _audit_options(parser: ArgumentParser) -> None:
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--quick", action="store_true", help="less work: minutes for ResNet-20")
    parser.add_argument(
        "--radius", help="of the attack, in pixel units; by default 8/255 (linf) or 0.5 (l2)"
    )
    parser.add_argument("--norm", default="linf", choices=list(BALLS), help="of the ball")
    parser.add_argument(
        "--sigma", help="Gaussian input noise in pixel units; by default the model's own"
    )
    parser.add_argument("--rule", default="prediction", help="voting rule")
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
        ball=_ball(given),
        sigma=None if given.sigma is None else _number("sigma", given.sigma),
        rule=given.rule,
        quick=given.quick,
        seed=given.seed,
        seen=_seen(given),
        settings=given.as_dict(),
    )


def _seen(given: Namespace) -> Images | None:
    """Return the images that the model was trained and tuned on, where its card tells."""
    path = find_checkpoint(given.model)
    if path is None:
        return None
    trained = load_data(given.data, "train")
    known = trained.hash == read_card(path).get("data", {}).get("hash")
    return trained.images if known else None


def _images(given: Namespace) -> ImageData:
    if given.split != "validation":
        return load_data(given.data, given.split, given.limit)
    path = find_checkpoint(given.model)
    if path is None:
        raise InputError(f"{given.model} has no card that says which images were held out")
    card = read_card(path)
    recipe, data = recipe_from(card["recipe"]), load_data(given.data, "train")
    if data.hash != card.get("data", {}).get("hash"):
        raise InputError(
            f"{given.model} was not trained on the whole training split of {given.data}, so it is "
            "not known which of these images it never saw"
        )
    held = hold_out(data, recipe.validation.held_out, recipe.seed)[1]
    if given.limit is not None and not given.limit >= 1:
        raise InputError(f"limit must be at least 1, not {given.limit}")
    return held[: given.limit]


_RADII = {"linf": "8/255", "l2": "0.5"}


def _number(what: str, text: str) -> float:
    try:
        return float(number(text))
    except ValueError:
        raise InputError(f"{what} must be a number such as 0.06 or 8/255, not {text!r}") from None


def _models_options(parser: ArgumentParser) -> None:
    del parser


def _models(given: Namespace) -> int:
    del given
    for name in models():
        print(name)
    return 0


_COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], None], Callable[[Any], int]]] = {
    "demo": ("Train, attack and smooth a small net on real digits.", _demo_options, _demo),
    "train": ("Train a recipe on a data set; resumes.", _train_options, _train),
    "evaluate": (
        "Measure a model, clean and attacked, in one pass and smoothed.",
        _evaluate_options,
        _evaluate,
    ),
    "attack": (
        "Measure a model like evaluate, and keep the adversarial examples.",
        _evaluate_options,
        _attack,
    ),
    "calibrate": (
        "Choose sigma and the voting rule on the images that training held out.",
        _calibrate_options,
        _calibrate,
    ),
    "audit": (
        "Check whether a model's robustness is real: thirteen checks, one page. Exit status 1 "
        "if one fires.",
        _audit_options,
        _audit,
    ),
    "models": ("List the shipped models.", _models_options, _models),
}

if __name__ == "__main__":
    sys.exit(main())
