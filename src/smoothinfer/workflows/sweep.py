"""``smoothinfer sweep``: a grid of models, noises, attacks, rules, sample counts and seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from smoothinfer.checkpoints import find_checkpoint, load, read_card
from smoothinfer.config.components import Component, number
from smoothinfer.config.yaml_files import changed, filled, plain, read_scaled
from smoothinfer.data import ImageData, load_data
from smoothinfer.errors import InputError, choose
from smoothinfer.evaluation import Evaluation, Sweep, prepare, summarise
from smoothinfer.evaluation.store import write_table
from smoothinfer.evaluation.rows import Rows
from smoothinfer.runtime.files import write_json, write_whole
from smoothinfer.workflows.evaluate import attack_of, noise_columns, under_noise
from smoothinfer.numerics.balls import BALLS, Ball
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.reporting.tables import markdown_table, print_table
from smoothinfer.smoothing.classifier import SmoothedClassifier

SMOKE = {"limit": 16, "samples": [1, 4], "seeds": [0]}


@dataclass(frozen=True)
class SweepRecipe:
    """What a sweep measures: every combination of what is listed.

    Attributes:
        about: what for.
        models: what to call them: what `load` takes; or a list of the latter.
        data, split, limit: the images.
        sigma: Gaussian input noise, numbers or ranges ``"0:0.5:0.01"`` (end included); none
            leaves the models' own.
        units: of sigma.
        attacks: components; none measures clean images only.
        attack_sigma: noise of the model that the attack sees; by default that of the setting.
            With a number, examples are crafted once for all sigmas.
        ball: where attacks may go.
        radius: radii of the ball, instead of its own, numbers or ranges as for sigma.
        rules, samples, seeds: all rules and sample counts come from one run of the largest.
    """

    about: str = ""
    models: dict[str, str] | list[str] = field(default_factory=dict)
    data: str = ""
    split: str = "test"
    limit: int | None = None
    sigma: list[Any] | None = None
    units: str = "pixel"
    attacks: list[Any] = field(default_factory=lambda: ["pgd(steps=7)"])
    attack_sigma: float | None = None
    ball: Component = Component("linf", {"radius": 8 / 255})
    radius: list[Any] | None = None
    rules: list[str] = field(default_factory=lambda: ["prediction"])
    samples: list[int] = field(default_factory=lambda: [512])
    seeds: list[int] = field(default_factory=lambda: [0])

    def __post_init__(self) -> None:
        for name in ("models", "data", "rules", "samples", "seeds"):
            if not getattr(self, name):
                raise InputError(f"a sweep needs {name}")
        for name, kind in (("samples", int), ("seeds", int), ("rules", str)):
            for each in getattr(self, name):
                if type(each) is not kind:
                    raise InputError(f"{name} must be a list of {kind.__name__}, not {each!r}")
        for each in self.models.values() if isinstance(self.models, dict) else self.models:
            if not isinstance(each, str):
                raise InputError(f"models must be names or paths, not {each!r}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"limit must be at least 1, not {self.limit}")

    @property
    def named(self) -> dict[str, str]:
        """The models by the name that rows give them."""
        if isinstance(self.models, dict):
            return self.models
        found = {Path(each).name: each for each in self.models}
        if len(found) < len(self.models):
            raise InputError("models need names of their own: write models: {NAME: PATH, ...}")
        return found

    @property
    def sigmas(self) -> list[float | None]:
        """The grid of sigmas, each once."""
        if self.sigma is None:
            return [None]
        return [*sorted({s for each in self.sigma for s in _spread("sigma", each)})]

    @property
    def balls(self) -> list[Ball]:
        """Where attacks may go, a ball for each radius."""
        if self.radius is None:
            return [self.ball.bind("ball", BALLS)()]
        radii = sorted({r for each in self.radius for r in _spread("radius", each)})
        return [choose("ball", BALLS, self.ball.name)(radius) for radius in radii]


def load_sweep(path: str | Path, changes: Iterable[str] = (), scale: str = "short") -> SweepRecipe:
    """Read a sweep recipe at ``scale`` with ``key=value`` changes; see `read_scaled`.

    Raises:
        InputError: the file is missing or malformed, or a key is unknown.
    """
    content = changed(read_scaled(path, scale, SMOKE), changes)
    if "parts" in content:
        stem = Path(path).stem
        raise InputError(f"{path} is an experiment of several sweeps: smoothinfer reproduce {stem}")
    found: SweepRecipe = filled(SweepRecipe, content, str(path))
    return found


def works_of(recipe: SweepRecipe, out: Path, images: ImageData) -> list[Evaluation]:
    """Return an evaluation for every model, sigma and seed of ``recipe``, checked."""
    attacks = {str(c): attack_of(c) for c in map(Component.of, recipe.attacks)}
    works = []
    for name, path in recipe.named.items():
        model = load(path).to(Processes().device)
        fixed = recipe.attack_sigma
        target = None if fixed is None else under_noise(model, fixed, recipe.units)
        for sigma in recipe.sigmas:
            noisy = model if sigma is None else under_noise(model, sigma, recipe.units)
            about = {"model": name, "data": images.name, **noise_columns(sigma, recipe.units)}
            about |= {} if fixed is None else {"attack_sigma": fixed}
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
                    seed=seed,
                    describe=about,
                    crafted=out / "crafted",
                    clean=place == 0,  # clean images are the same in every ball
                )
                works.append(work)
    return works


def run_sweep(
    recipe: SweepRecipe,
    out: str | Path,
    *,
    shard: tuple[int, int] = (0, 1),
    merge: Sequence[str | Path] = (),
    reuse: Sequence[str | Path] = (),
    only_plan: bool = False,
    data: ImageData | None = None,
) -> Rows | None:
    """Do a sweep, or one of its parts; return all rows once they are complete.

    Args:
        recipe: what to measure.
        out: folder of ``rows/``, ``crafted/`` and, in the end, ``table.parquet`` and
            ``summary.json``.
        shard: (i, N), to do the i-th of N parts, from 0.
        merge: folders of other parts, whose rows are copied here first.
        reuse: folders of other sweeps; units that are the same there are copied, not done again.
        only_plan: say what there is to do, and how long it takes, and stop.
        data: images, instead of those that the recipe names.

    Raises:
        InputError: the recipe or a model is malformed, or a shard is damaged.
    """
    out, processes = Path(out), Processes()
    console = Console(quiet=not processes.main, highlight=False)
    images = load_data(recipe.data, recipe.split, recipe.limit) if data is None else data
    sweep = Sweep(works_of(recipe, out, images), out, shard)
    for folder in () if only_plan else (*merge, *reuse):
        new, others = sweep.store.take(Path(folder) / "rows", sweep.works)
        left = f", {others} of other settings left there" if others else ""
        if new or folder in merge:  # of what might be of use only what was
            console.print(f"{new} new units from {folder}{left}")
    console.print(str(sweep.plan()))
    if only_plan:
        return None
    told = {**_origins(recipe, images), **made_by()}
    if processes.main:
        write_json(out / "settings.json", {"sweep": plain(recipe), **told})
    sweep.run(progress=True)
    if not sweep.complete:
        console.print("this part is done; --merge puts the parts together")
        return None
    rows = sweep.rows()
    if processes.main:
        _write(rows, recipe, out, {**told, "computers": sweep.store.computers(sweep.works)})
    print_table(console, rows)
    console.print(f"{len(rows):,} rows in {out / 'table.parquet'}, summary in summary.json")
    return rows


def _origins(recipe: SweepRecipe, images: ImageData) -> dict[str, Any]:
    """Return the hashes of the images and, where cards tell, of the weights."""
    paths = {name: find_checkpoint(path) for name, path in recipe.named.items()}
    weights = {name: read_card(path)["sha256"] for name, path in paths.items() if path}
    return {"weights": weights, "data": {"name": images.name, "hash": images.hash}}


def _write(rows: Rows, recipe: SweepRecipe, out: Path, origins: dict[str, Any]) -> None:
    told = {
        "asked": plain(recipe),
        "interval": "95 % (Wilson) over images, noise members fixed by the seed",
        "settings": summarise(rows),
        **origins,
        "table": write_table(rows, out / "table.parquet"),
    }
    write_json(out / "summary.json", told)
    write_whole(out / "table.md", lambda file: file.write(markdown_table(rows).encode()))


def _spread(what: str, given: Any) -> list[float]:
    """Read one number, or ``first:last:step``.

    >>> _spread("sigma", "0:0.3:0.1")
    [0.0, 0.1, 0.2, 0.3]
    """
    parts = str(given).split(":")
    try:
        values = [float(number(part)) for part in parts]
    except ValueError:
        values = []
    if len(values) == 1:
        return values
    ranged = len(values) == 3 and all(map(math.isfinite, values)) and values[2] > 0
    count = round((values[1] - values[0]) / values[2]) if ranged else -1
    if count >= 0 and abs(values[0] + count * values[2] - values[1]) < 1e-9:
        return [round(values[0] + k * values[2], 10) for k in range(count + 1)]
    raise InputError(f"{what} must be a number or first:last:step in whole steps, not {given!r}")


def describe(recipe: SweepRecipe) -> str:
    """Return the resolved recipe as YAML."""
    return str(yaml.safe_dump(plain(recipe), sort_keys=False))
