"""``smoothinfer standard``: how robust a model is, random or not, in three numbers."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

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
from smoothinfer.config.components import Component
from smoothinfer.errors import plain_int
from smoothinfer.evaluation.rows import CLEAN, Rows
from smoothinfer.evaluation.standing import ASKED_AGAIN, Standing, standing_of
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.files import write_json, write_text
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.workflows.evaluate import evaluate_model

_AUTHORS = "one_draw(steps=20)"  # the protocol of several random defences' own scripts
_DRAWS = {"quick": (1, 4, 16), "standard": (1, 4, 16, 64), "full": (1, 4, 16, 64)}


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
    strongest = str(Component("standard", {"budget": options.budget}))
    draws = [f"pgd(steps=20, draws={count})" for count in _DRAWS[options.budget]]
    asked = vars(options) | {
        "attack": [strongest, *([_AUTHORS, *draws] if random else [])],
        "sigma": None if options.sigma is None else [options.sigma],
        "samples": [options.samples if random else ASKED_AGAIN],
        "rule": ["prediction"],
        **{"units": None, "examples": [], "stop": "fixed", "delta": 1e-3, "plan": False},
    }
    rows = evaluate_model(Namespace(**asked), data=images)
    if rows is not None and Processes().main:
        content = judged(rows, strongest, random)
        about = {"model": str(options.model), "sha256": weights_hash(options.model)}
        about |= {"budget": options.budget, "norm": options.norm, "data hash": images.hash}
        out = Path(options.out)
        write_json(out / "standing.json", {**about, **content, **made_by()})
        table, console = standing_table(content), Terminal()
        write_text(out / "standing.md", f"{table.markdown()}\n{content['verdict']}\n")
        table.print(console)
        console.print(content["verdict"], markup=False)
    return 0


def judged(rows: Rows, strongest: str, random: bool) -> dict[str, Any]:
    """Return the standing under each attack, by its name, and a verdict in words.

    Args:
        rows: of one model, clean and attacked, one vote for each.
        strongest: the attack that the verdict is about.
        random: whether passes differ.
    """
    standings = {
        name: standing_of(rows.filter(pc.equal(rows["attack"], name)))
        for name in dict.fromkeys(rows["attack"].to_pylist())
    }
    clean, under = standings[CLEAN], standings[strongest]
    attacked = [each for name, each in standings.items() if name != CLEAN]
    # The standard attack is after the vote: another one may hurt single passes more.
    mean = min((each.mean for each in attacked), key=lambda found: found.value)
    worst = min((each.worst for each in attacked), key=lambda found: found.value)
    return {
        "random": random,
        "standings": {name: each.to_dict() for name, each in standings.items()},
        "mean": mean.as_dict(),
        "worst": worst.as_dict(),
        "vote": under.vote.as_dict(),
        "verdict": (
            verdict_of(clean, under, mean, worst) if random else _plain_verdict(clean, under)
        ),
    }


def verdict_of(clean: Standing, under: Standing, mean: Interval, worst: Interval) -> str:
    """Say what is left of a random model's accuracy, and what its vote adds.

    Args:
        clean: without an attack.
        under: the standard attack.
        mean, worst: of single passes and of ten in a row, under the attack that is worst for them.
    """
    adds = "adds accuracy" if under.gain.low > 0 else "adds no measurable robustness"
    return (
        f"Under the standard attack the vote keeps {under.vote} % of {clean.vote.images} images "
        f"(clean {clean.vote}). A single pass keeps {mean} % under the attack that hurts it most, "
        f"{ASKED_AGAIN} passes in a row {worst} %. Under the standard attack the vote {adds}: "
        f"{_points(under.gain)} points over a pass (clean {_points(clean.gain)}). Luck of the "
        f"draws moves the vote's figure by about {100 * under.luck:.1f} points."
    )


def _plain_verdict(clean: Standing, under: Standing) -> str:
    return (
        f"Under the standard attack {under.vote} % of {clean.vote.images} images are left (clean "
        f"{clean.vote}). The model has no noise: every pass gives the same answer."
    )


def standing_table(content: dict[str, Any]) -> Table:
    """Return the three numbers of each attack."""
    heads = ["attack", "mean of passes", f"{ASKED_AGAIN} passes in a row", "vote", "vote adds"]
    lines = [
        [
            "clean" if name == CLEAN else name,
            *(str(Interval(**each[key])) for key in ("mean", "worst", "vote")),
            _points(Interval(**each["gain"])),
        ]
        for name, each in content["standings"].items()
    ]
    return Table(heads, lines, "accuracy, % (95 % interval over images)", left=1)


def _points(gain: Interval) -> str:
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"
