"""``smoothinfer evaluate``: one model under several noises and attacks, a sweep of one model."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from smoothinfer.attacks import ATTACKS
from smoothinfer.cli.numbers import decimal_number, number_of, whole_number
from smoothinfer.cli.options import (
    RADII,
    add_ball,
    add_limit,
    add_model,
    add_seed,
    add_split,
    images_of_split,
    weights_hash,
)
from smoothinfer.config.components import Component
from smoothinfer.data import ImageData
from smoothinfer.engine.stops import STOPS
from smoothinfer.engine.voting import RULES
from smoothinfer.errors import InputError
from smoothinfer.evaluation.rows import Rows, summarise
from smoothinfer.noise.additive import UNITS
from smoothinfer.numerics.statistics import proportion
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.sweep_recipe import SweepRecipe
from smoothinfer.workflows.sweep import run_sweep

_AT_CHANCE = (
    "clean accuracy is at chance: images come in [0, 1]; is the normalisation inside the model, "
    "once?"
)


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "--attack",
        nargs="+",
        help=f"one or more of {', '.join(ATTACKS)}, with options as in 'pgd(steps=20, draws=8)'; "
        "'none' measures clean images only; pgd by default",
    )
    parser.add_argument(
        "--examples",
        nargs="+",
        default=[],
        metavar="FILE",
        help="adversarial examples that another tool made of these images, in their order: .npz, "
        ".npy, .safetensors or tensors in .pt; judged like those of an attack",
    )
    add_ball(parser)
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
        type=whole_number,
        default=[512],
        help="numbers of passes; without early stopping all come out of one run of the largest",
    )
    parser.add_argument(
        "--stop",
        default="fixed",
        metavar="{" + ",".join(STOPS) + "}",
        help="when a vote ends: fixed, after all passes; exact, when the answer can no longer "
        "change; ppr or betting, when it is right except with probability --delta; value, when "
        "more passes are not worth their price, as in 'value(price=0.0002)'",
    )
    parser.add_argument(
        "--delta", type=decimal_number, default=1e-3, help="error probability of ppr and betting"
    )
    add_split(parser)
    add_limit(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="folder of rows/, summary.json, table.md")
    parser.add_argument("--plan", action="store_true", help="print the cost, and stop")


def run(options: Namespace) -> int:
    evaluate_model(options)
    return 0


def attacks_of(options: Namespace) -> list[str]:
    """Return the attacks of --attack and --examples; pgd where there is neither."""
    examples = [str(Component("examples", {"file": file})) for file in options.examples]
    return (options.attack or ([] if examples else ["pgd"])) + examples


def evaluate_model(
    options: Namespace,
    export: bool = False,
    data: ImageData | None = None,
    tables: bool = True,
) -> Rows | None:
    """Run the sweep of one model that the arguments describe; return its rows.

    Args:
        options: see `add_arguments`.
        export: keep the adversarial examples, with pictures.
        data: the images that the arguments name, where they are loaded already.
        tables: print the tables in the end.
    """
    if options.units and not options.sigma:
        raise InputError("--units is the unit of --sigma: give --sigma too")
    attacks = attacks_of(options)
    if len(set(attacks)) > 1 and "none" in attacks:
        raise InputError(
            "--attack none measures clean images only, and with any attack they are measured too: "
            "leave none out"
        )
    sigma = [number_of("sigma", each) for each in options.sigma] if options.sigma else None
    radius = number_of("radius", options.radius or RADII[options.norm])
    recipe = SweepRecipe(
        models={str(options.model): str(options.model)},
        data=options.data,
        split=options.split,
        limit=options.limit,
        first=options.first,
        sigma=sigma,
        units=options.units or "pixel",
        attacks=[] if set(attacks) == {"none"} else attacks,
        ball=Component(options.norm, {"radius": radius}),
        rules=options.rule,
        samples=options.samples,
        seeds=[options.seed],
        stop=options.stop,
        delta=options.delta,
    )
    asked = {name: value for name, value in vars(options).items() if name != "command"}
    images = images_of_split(options) if data is None else data
    rows = run_sweep(
        recipe,
        Path(options.out),
        data=images,
        asked=asked | {"sha256": weights_hash(options.model)},
        export=export,
        only_plan=options.plan,
        estimate=False,
        tables=tables,
    )
    if rows is not None and at_chance(rows, len(images.classes)):
        Terminal(quiet=not Processes().main).print(f"warning: {_AT_CHANCE}", style="yellow")
    return rows


def at_chance(rows: Rows, classes: int) -> bool:
    """Say whether clean accuracy is in no setting measurably above one in ``classes``.

    Of so few images that no accuracy would be, it is not said.
    """
    chance = 1 / classes
    clean = [entry["clean"] for entry in summarise(rows) if entry["clean"]]
    enough = [each for each in clean if proportion(each["images"], each["images"]).low > chance]
    return bool(enough) and all(each["low"] <= chance for each in enough)
