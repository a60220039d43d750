"""``smoothinfer sweep``: a grid of models, noises, attacks, rules, sample counts and seeds."""

import itertools
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smoothinfer.checkpoints import load
from smoothinfer.cli.numbers import shard_of
from smoothinfer.cli.options import (
    DATA_HELP,
    OF_SWEEP,
    add_recipe,
    attack_of,
    recipe_file,
    weights_hash,
)
from smoothinfer.config.components import Component
from smoothinfer.config.typed import to_plain
from smoothinfer.data import ImageData, choice_name, load_split
from smoothinfer.errors import InputError
from smoothinfer.evaluation.evaluate import prepare, warn_of_batches
from smoothinfer.evaluation.examples import ExampleExport, short_name
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.units import Evaluation
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.reporting.summary import draw_examples, print_summary, write_summary
from smoothinfer.reporting.table_file import check_rows
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.sweep_recipe import SweepRecipe, load_sweep
from smoothinfer.workflows.run_notes import changes, results_of_others


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, "sweeps/digits.yaml", OF_SWEEP)
    parser.add_argument("--out", required=True, help="folder of rows/, examples, table and summary")
    parser.add_argument("--data", help="instead of the recipe's: " + DATA_HELP)
    parser.add_argument(
        "--shard",
        default="0/1",
        metavar="I/N",
        help="run the I-th of N parts, from 0, as in a job array; the folder may be shared or not",
    )
    parser.add_argument(
        "--merge",
        nargs="+",
        default=[],
        help="folders of other parts, whose rows are copied here",
    )
    parser.add_argument("--plan", action="store_true", help="print the cost, and stop")


def run(options: Namespace) -> int:
    overrides = [*options.set, *([f"data={options.data}"] if options.data else [])]
    written = to_plain(load_sweep(recipe_file(options), (), options.scale))
    recipe = load_sweep(recipe_file(options), overrides, options.scale)
    console = Terminal(quiet=not Processes().main)
    console.print(f"{options.recipe}: {_grid(recipe)}", markup=False)
    for line in changes(written, to_plain(recipe)):
        console.print(line, markup=False)
    shard = shard_of(options)
    run_sweep(recipe, options.out, shard=shard, merge=options.merge, only_plan=options.plan)
    return 0


def _grid(recipe: SweepRecipe) -> str:
    """Count the settings of a sweep: 2 models x 3 sigmas x 2 attacks."""
    counts = {
        "model": len(recipe.named),
        "sigma": len(recipe.sigmas),
        "radius": len(recipe.balls),
        "attack": len(recipe.attacks),
        "rule": len(recipe.rules),
        "number of passes": len(recipe.samples),
        "seed": len(recipe.seeds),
    }
    plurals = {"radius": "radii", "number of passes": "numbers of passes"}
    many = [f"{n} {plurals.get(name, name + 's')}" for name, n in counts.items() if n > 1]
    return " x ".join(many) or "one setting"


def run_sweep(
    recipe: SweepRecipe,
    out: str | Path,
    *,
    shard: tuple[int, int] = (0, 1),
    merge: Sequence[str | Path] = (),
    reuse: Sequence[str | Path] = (),
    only_plan: bool = False,
    data: ImageData | None = None,
    asked: Mapping[str, Any] | None = None,
    export: bool = False,
    estimate: bool = True,
    tables: bool = True,
) -> Rows | None:
    """Run a sweep, or one of its parts; return all rows once they are complete.

    Args:
        recipe: the grid of settings.
        out: folder of ``rows/``, ``crafted/`` (adversarial examples for reuse) and, in the end,
            ``table.parquet``, ``summary.json``, ``table.md`` and ``costs.json``.
        shard: (i, N), to run the i-th of N parts, from 0.
        merge: folders of other parts, whose rows are copied here first.
        reuse: folders of other sweeps; units that are the same there are copied, not run again.
        only_plan: print the cost, and stop.
        data: images, instead of those that the recipe names.
        asked: the user's settings for the summary, instead of the recipe.
        export: write the adversarial examples of each attack to ``examples/``, with pictures.
        estimate: print the cost first, for which each attack runs on one image.
        tables: print the tables in the end.

    Raises:
        InputError: the recipe or a model is malformed, or a shard is damaged.
    """
    out, processes = Path(out), Processes()
    console = Terminal(quiet=not processes.main)
    images = data or load_split(recipe.data, recipe.split, recipe.limit, recipe.first)
    images = images.by_number() if recipe.by_number else images
    works = prepare_works(recipe, out, images)
    runner = Runner(works, Store(out / "rows"), shard)
    for folder in () if only_plan else (*merge, *reuse):
        _take(runner, folder, console, must=folder in merge)
    for line in runner.reuse():
        console.print(line)
    if estimate or only_plan:
        console.print("the cost, measured by running each attack on one image:")
        console.print(str(runner.plan()))
    if only_plan:
        return None
    settings = _settings(recipe, images, asked)
    if processes.main:
        if before := results_of_others(out, settings):
            console.print(before)
        write_json(out / "settings.json", settings)
    runner.run(progress=True)
    if not runner.complete:
        console.print("this part is done; --merge puts the parts together")
        return None
    rows = check_rows(runner.rows(), out / "rows")  # some may be a stranger's, merged here
    if processes.main:
        if export:
            _export(works, rows, out / "examples", images.classes)
        write_summary(rows, runner, out, settings)
    if tables:
        print_summary(console, rows, runner, out, settings)
    return rows


def _take(runner: Runner, folder: str | Path, console: Terminal, must: bool) -> None:
    """Copy the units of ``folder``; those that need not be there may be damaged."""
    try:
        new, others = runner.store.take(Path(folder) / "rows", runner.works)
    except InputError as error:
        if must:
            raise
        console.print(f"warning: {error}", style="yellow", markup=False)
        return
    left = f", {others} of other settings not copied" if others else ""
    if new or must:
        console.print(f"{new} new units from {folder}{left}", markup=False)


def prepare_works(recipe: SweepRecipe, out: Path, images: ImageData) -> list[Evaluation]:
    """Return an evaluation for every model, sigma, seed and ball of ``recipe``, checked."""
    attacks = {str(c): attack_of(c) for c in map(Component.of, recipe.attacks)}
    works = []
    for name, path in recipe.named.items():
        model = load(path).to(Processes().device)
        fixed = recipe.attack_sigma
        target = None if fixed is None else with_input_noise(model, fixed, recipe.units)
        for sigma in recipe.sigmas:
            noisy = with_input_noise(model, sigma, recipe.units)
            describe: dict[str, Any] = {"model": name, "data": images.name}
            describe |= {} if sigma is None else {"sigma": float(sigma), "units": recipe.units}
            describe |= {} if fixed is None else {"attack_sigma": fixed}
            smooth = SmoothedClassifier(noisy, max(recipe.samples))
            for seed, (place, ball) in itertools.product(recipe.seeds, enumerate(recipe.balls)):
                work = prepare(
                    smooth,
                    images,
                    attack=attacks or None,
                    ball=ball,
                    target=target,
                    rules=recipe.rules,
                    samples=recipe.samples,
                    stop=recipe.stop,
                    delta=recipe.delta,
                    seed=seed,
                    describe=describe,
                    cache=out / "crafted",
                    clean=place == 0,  # clean images are the same in every ball
                )
                works.append(work)
        warn_of_batches(model, images.images)  # once; the checks above have run by now
    return works


def _settings(
    recipe: SweepRecipe, images: ImageData, asked: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the settings of a sweep, with the hashes of the images and of the weights."""
    hashes = {name: weights_hash(path) for name, path in recipe.named.items()}
    return {
        "asked": to_plain(recipe) if asked is None else dict(asked),
        "split": recipe.split,
        "weights": {name: digest for name, digest in hashes.items() if digest},
        "data": {
            "name": images.name,
            "hash": images.hash,
            "images": len(images),
            "choice": choice_name(recipe.limit, recipe.first),
            "classes": list(images.classes),
        },
        **made_by(),
    }


def _export(works: Sequence[Evaluation], rows: Rows, folder: Path, classes: Sequence[str]) -> None:
    for work in works:
        sigma = work.describe.get("sigma")
        shards = ExampleExport(folder if sigma is None else folder / f"sigma={short_name(sigma)}")
        shards.write(work)
        draw_examples(shards, rows, classes)
