"""``sweep``, ``reproduce``, ``report`` and ``picture``."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from smoothinfer.workflows.reproduce.appendix import appendix
from smoothinfer.checkpoints import load
from smoothinfer.cli.command import Command
from smoothinfer.cli.options import (
    DATA_HELP,
    ball_of,
    ball_options,
    model_options,
    optional,
    recipe_file,
    sigma_option,
)
from smoothinfer.config.components import Component
from smoothinfer.config.yaml_files import SCALES
from smoothinfer.data import load_data
from smoothinfer.errors import InputError
from smoothinfer.workflows.reproduce.experiments import experiments
from smoothinfer.workflows.evaluate import attack_of, under_noise
from smoothinfer.runtime.processes import Processes
from smoothinfer.workflows.picture import PICTURES, picture
from smoothinfer.reporting.report import write_report
from smoothinfer.workflows.reproduce.tables_and_figures import ALL, APPENDIX, reproduce, reproduce_all
from smoothinfer.workflows.sweep import describe, load_sweep, run_sweep


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
    parser.add_argument(
        "--attack", nargs="+", default=["pgd"], help="as for evaluate; of cost several"
    )
    ball_options(parser)
    sigma_option(parser)
    parser.add_argument("--limit", type=int, default=200, help="use the first so many images")
    parser.add_argument("--seed", type=int, default=0, help="names the streams")
    parser.add_argument("--out", required=True, help="folder of KIND.png and KIND.json")


def _picture(given: Namespace) -> int:
    model, sigma = load(given.model).to(Processes().device), optional(given, "sigma")
    model = model if sigma is None else under_noise(model, sigma)
    data = load_data(given.data, "test", given.limit)
    attacks = {attack: attack_of(Component.of(attack)) for attack in given.attack}
    picture(given.kind, model, data, attacks, ball_of(given), given.out, given.seed)
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
    "sweep": Command(
        "Measure a grid of settings; resumed, shared out, merged.",
        _sweep_options,
        _sweep,
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
    "picture": Command(
        "Draw what passes cost, what an attack does to votes, or what gradients look like.",
        _picture_options,
        _picture,
    ),
}
