"""``smoothinfer standard``: how robust a model is, random or not, in three numbers."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from smoothinfer.attacks.checks import is_random
from smoothinfer.attacks.standard_attack import BUDGETS
from smoothinfer.cli.numbers import whole_number
from smoothinfer.cli.options import (
    add_ball,
    add_limit,
    add_model,
    add_seed,
    add_sigma,
    add_split,
    images_of_split,
    load_model,
    weights_hash,
)
from smoothinfer.errors import plain_int
from smoothinfer.evaluation.judgement import judged, protocol, strongest_of
from smoothinfer.evaluation.rows import summarise
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.evaluation.subject import subject_text
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.standing_tables import standing_table
from smoothinfer.runtime.files import write_json, write_text
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.workflows.evaluate import evaluate_model


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Judge a model by the standard attack, the worst case over eight attacks that average over "
        "the model's noise; an image counts as broken when a fresh vote says so. Beside it stand "
        "the attack on one frozen draw, by which many random defences were evaluated, and PGD with "
        "more and more draws in each gradient. Three numbers for each attack: the mean over single "
        f"passes, the images that {ASKED_AGAIN} passes in a row get right, and the vote."
    )
    add_model(parser)
    parser.add_argument(
        "--budget",
        default="standard",
        choices=list(BUDGETS),
        help="of the standard attack: quick for a first look, full for publication",
    )
    add_ball(parser)
    add_sigma(parser)
    parser.add_argument("--samples", type=whole_number, default=512, help="passes of a vote")
    add_split(parser)
    add_limit(parser)
    add_seed(parser)
    parser.add_argument("--out", required=True, help="folder of rows/, standing.json, standing.md")


def run(options: Namespace) -> int:
    plain_int("samples", options.samples, at_least=ASKED_AGAIN)
    images = images_of_split(options)
    model = load_model(options)
    random = is_random(model, images.images[:2].to(Processes().device))
    strongest = strongest_of(options.budget)
    asked = vars(options) | {
        "attack": protocol(options.budget, random),
        "sigma": None if options.sigma is None else [options.sigma],
        "samples": [options.samples if random else ASKED_AGAIN],
        "rule": ["prediction"],
        **{"units": None, "examples": [], "stop": "fixed", "delta": 1e-3, "plan": False},
    }
    rows = evaluate_model(Namespace(**asked), data=images, tables=False)
    if rows is not None and Processes().main:
        content = judged(rows, strongest, random)
        about = {"model": str(options.model), "sha256": weights_hash(options.model)}
        about |= {"budget": options.budget, "norm": options.norm, "data hash": images.hash}
        out = Path(options.out)
        write_json(out / "standing.json", {**about, **content, **made_by()})
        table, console = standing_table(content), Terminal()
        told = subject_text(summarise(rows), by_default=options.radius is None)
        text = f"{escape_markdown(told)}\n\n{table.markdown()}\n{content['verdict']}\n"
        write_text(out / "standing.md", text)
        console.print(told)
        table.print(console)
        console.print(content["verdict"], markup=False)
        console.print(f"tables and verdict in {out / 'standing.md'}, rows in {out / 'rows'}")
    return 0
