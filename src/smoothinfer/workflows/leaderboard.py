"""``smoothinfer leaderboard``: judge models by one protocol; a card for each, and one table."""

import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.attacks.checks import is_random
from smoothinfer.board_recipe import BoardRecipe, Entry
from smoothinfer.cards import read_card
from smoothinfer.checkpoints import find_checkpoint
from smoothinfer.cli.options import OF_BOARD, add_recipe, attack_of, recipe_file, weights_hash
from smoothinfer.config.settings_files import apply_overrides, read_settings
from smoothinfer.config.typed import from_dict, to_plain
from smoothinfer.data import ImageData, choose_images, load_split
from smoothinfer.errors import InputError
from smoothinfer.evaluation.audit.runner import audit
from smoothinfer.evaluation.evaluate import prepare, warn_of_batches
from smoothinfer.evaluation.judgement import LEANS, dear, judged, protocol, strongest_of
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.evaluation.store import Store
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.reporting.board import Board, check_cards, read_board
from smoothinfer.reporting.board_page import write_board
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.state_dicts import is_state_dict

_AUDITED = 300  # images of a quick audit
SMOKE: dict[str, Any] = {"limit": 8, "dear_limit": 8, "samples": 10}


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Judge a list of models, random or not, by one protocol: see smoothinfer standard. Each "
        "gets a card in DIR/cards, a JSON file; the table holds whatever cards are there, those of "
        "other people too, sorted by the worst case of the vote over all attacks."
    )
    add_recipe(parser, "boards/cifar10.yaml", OF_BOARD)
    parser.add_argument("--data", help="instead of the recipe's")
    parser.add_argument("--only", nargs="+", help="names of the entries to judge now")
    parser.add_argument(
        "--out", required=True, help="folder of cards/, leaderboard.html, .md and .tex"
    )


def run(options: Namespace) -> int:
    overrides = [*options.set, *([f"data={options.data}"] if options.data else [])]
    file = recipe_file(options)
    content = apply_overrides(read_settings(file, options.scale, SMOKE), overrides)
    recipe = from_dict(BoardRecipe, content, str(file))
    chosen = _chosen(recipe, options.only)
    images = load_split(recipe.data, recipe.split, recipe.limit, recipe.first)
    ball = recipe.ball.bind("ball", BALLS)()
    out, console = Path(options.out), Terminal(quiet=not Processes().main)
    check_cards(out / "cards", _protocol_of(recipe, images, ball), chosen)
    models = {name: entry.build(images.shape) for name, entry in chosen.items()}
    for number, (name, model) in enumerate(models.items(), start=1):
        console.print(f"{number} of {len(models)}: {name}", markup=False)
        card = judge(name, chosen[name], model, recipe, images, ball, out / "entries" / name)
        repeat = _command(options, name)
        if Processes().main:
            write_json(out / "cards" / f"{name}.json", card | {"commands": [repeat]})
    if Processes().main:
        board = read_board(out / "cards")
        write_board(board, out, recipe.description)
        print_board(board, console)
    return 0


def _command(options: Namespace, name: str) -> str:
    """Return the command line that judges this entry again."""
    words = ["smoothinfer", "leaderboard", options.recipe, "--only", name, "--out", options.out]
    words += ["--scale", options.scale] if options.scale != "short" else []
    words += ["--data", options.data] if options.data else []
    words += ["--trust-code"] if options.trust_code else []
    return shlex.join(map(str, [*words, *(["--set", *options.set] if options.set else [])]))


def print_board(board: Board, console: Terminal) -> None:
    """Print the tables of a board; their intervals are in the files."""
    for table in board.tables(short=True):
        table.print(console)
    console.print(
        "worst: right in every case, clean or attacked; pass, ten: one pass and ten in a row, "
        "under the attack that is worst for them; authors: attack on one frozen draw; vote adds: "
        f"points over a pass under the strongest attack; {LEANS}"
    )


def _chosen(recipe: BoardRecipe, only: list[str] | None) -> dict[str, Entry]:
    entries = recipe.entries
    if unknown := set(only or ()) - set(entries):
        raise InputError(f"no entry {sorted(unknown)[0]!r}: there are {', '.join(entries)}")
    if not entries:
        raise InputError("there are no entries to judge")
    return {name: entry for name, entry in entries.items() if not only or name in only}


def judge(
    name: str,
    entry: Entry,
    model: nn.Module,
    recipe: BoardRecipe,
    images: ImageData,
    ball: Ball,
    folder: Path,
) -> dict[str, Any]:
    """Run the protocol on ``model``, resumed from ``folder``; return its card."""
    random = is_random(model, images.images[:2].to(Processes().device))
    few = choose_images(images, recipe.dear_limit, first=True)
    attacks = {each: attack_of(each) for each in protocol(recipe.budget, random)}
    costly = {each: attacks.pop(each) for each in dear(recipe.budget) if each in attacks}
    parts = [(images, attacks, True), (few, costly, False)]
    smooth = SmoothedClassifier(model, recipe.samples if random else ASKED_AGAIN)
    works = [
        prepare(
            smooth,
            part,
            attack=some or None,
            ball=ball,
            seed=recipe.seed,
            describe={"model": name, "data": part.name},
            cache=folder / "crafted",
            clean=clean,
        )
        for part, some, clean in parts
    ]
    warn_of_batches(model, images.images)
    runner = Runner(works, Store(folder / "rows"))
    runner.run(progress=True)
    seconds = sum(runner.store.seconds(runner.works).values())
    return _card(name, entry, recipe, images, ball, runner.rows(), random) | {
        "seconds": round(seconds, 2),
        "audit": _audited(model, recipe, images, ball, folder / "audit"),
    }


def _card(
    name: str,
    entry: Entry,
    recipe: BoardRecipe,
    images: ImageData,
    ball: Ball,
    rows: Rows,
    random: bool,
) -> dict[str, Any]:
    content = judged(rows, strongest_of(recipe.budget), random)
    standings = content.pop("standings")
    return {
        "name": name,
        "model": entry.model,
        "defence": None if entry.defence is None else str(entry.defence),
        "sha256": weights_hash(entry.model),
        "epochs": _epochs(entry.model),
        "data": images.name,
        **_protocol_of(recipe, images, ball),
        "seed": recipe.seed,
        **content,
        "standings": [{"attack": attack, **each} for attack, each in standings.items()],
        "passes": round(_passes_of_an_image(rows), 1),
        "claim": to_plain(entry.claim),
        "note": entry.note or None,
        **made_by(),
    }


def _protocol_of(recipe: BoardRecipe, images: ImageData, ball: Ball) -> dict[str, Any]:
    """Return what all cards of a board have in common."""
    return {
        "data hash": images.hash,
        "ball": str(ball),
        "budget": recipe.budget,
        "samples": recipe.samples,
        "limits": [len(images), min(len(images), recipe.dear_limit or len(images))],
        "strongest": strongest_of(recipe.budget),
    }


def _passes_of_an_image(rows: Rows) -> float:
    """Return the passes that all attacks together take of an image, a backward one as two."""
    means = rows.group_by("attack").aggregate([("forwards", "mean"), ("backwards", "mean")])
    return sum(each["forwards_mean"] + 2 * each["backwards_mean"] for each in means.to_pylist())


def _epochs(model: str) -> int | None:
    """Return the epochs of a trained model, with those of the model that it started from."""
    path = None if is_state_dict(model) else find_checkpoint(model)
    if path is None:
        return None
    recipe = read_card(path)["recipe"]
    before = _epochs(recipe["init_from"]) if recipe.get("init_from") else 0
    return int(recipe["epochs"]) + (before or 0)


def _audited(
    model: nn.Module, recipe: BoardRecipe, images: ImageData, ball: Ball, out: Path
) -> str | None:
    if not recipe.audit:
        return None
    few = choose_images(images, _AUDITED, first=True)
    found = audit(
        model, few, ball=ball, quick=True, seed=recipe.seed, out=out, progress=Processes().main
    )
    return found.verdict
