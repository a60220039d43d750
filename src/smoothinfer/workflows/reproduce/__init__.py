"""``smoothinfer reproduce``: a table or figure of the paper, its numbers beside ours."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from smoothinfer.cli.options import DATA_HELP, OF_SWEEP, add_scale
from smoothinfer.errors import InputError, unknown
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.workflows.reproduce.appendix import run_appendix
from smoothinfer.workflows.reproduce.experiments import list_experiments
from smoothinfer.workflows.reproduce.runs import APPENDIX, reproduce, reproduce_all

ALL = "all"


def add_arguments(parser: ArgumentParser) -> None:
    names = ", ".join([*list_experiments(), APPENDIX])
    parser.add_argument("name", help=f"one of {names} (on the digits), or {ALL}")
    parser.add_argument("--data", help=f"images like those of the models' training: {DATA_HELP}")
    parser.add_argument("--out", required=True, help="folder of rows, figures, report and table")
    add_scale(parser, OF_SWEEP)
    parser.add_argument(
        "--runs", default="runs", help="folder of trained models, named as their recipes"
    )
    parser.add_argument(
        "--reuse", help="folder of other experiments, whose rows of the same settings are copied"
    )


def run(options: Namespace) -> int:
    if options.reuse is not None and options.name in (ALL, APPENDIX):
        raise InputError(f"{options.name} takes no --reuse: leave it out")
    console = Terminal()
    known = [*list_experiments(), APPENDIX, ALL]
    if options.name not in known:
        raise unknown("experiment", options.name, known)
    if options.name == APPENDIX:
        run_appendix(options.out)
        console.print_lines((Path(options.out) / f"{APPENDIX}.md").read_text(encoding="utf-8"))
        return 0
    if options.data is None:
        raise InputError(
            f"{options.name} needs --data, images like those its models were trained on, such as "
            "uoft-cs/cifar10 for the shipped ones"
        )
    how = {"data": options.data, "scale": options.scale, "runs": options.runs}
    if options.name == ALL:
        console.print(str(reproduce_all(options.out, overrides=options.set, **how)))
        return 0
    path = reproduce(options.name, options.out, reuse=options.reuse, overrides=options.set, **how)
    console.print_lines(path.read_text(encoding="utf-8"))
    return 0
