"""Runs of the paper's tables and figures, the measured numbers beside the published ones."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smoothinfer.config.components import Component
from smoothinfer.data import ImageData, choose_images
from smoothinfer.errors import InputError
from smoothinfer.reporting.collect import MEASURES, Record, accuracy_text, collect, records
from smoothinfer.reporting.comparison import Comparison, write_comparison
from smoothinfer.reporting.figures import draw_curves
from smoothinfer.reporting.report import write_report
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.sweep_recipe import SweepRecipe
from smoothinfer.workflows.reproduce.appendix import run_appendix
from smoothinfer.workflows.reproduce.experiments import (
    Experiment,
    Figure,
    is_model,
    list_experiments,
    load_experiment,
    place_of,
)
from smoothinfer.workflows.sweep import run_sweep

APPENDIX = "appendix-a"
_HEADS = ["", "paper: clean", "attacked", "ours: clean", "attacked", "images"]
_NOTE = "Ours: % with 95 % intervals over images; ± is the standard deviation over seeds."


class NoModelError(InputError):
    """None of the models of an experiment is there."""


def reproduce_all(
    out: str | Path,
    *,
    data: str | ImageData,
    scale: str = "short",
    runs: str | Path = "runs",
    overrides: Sequence[str] = (),
) -> Path:
    """Run every experiment whose models are in ``runs`` or shipped, and report on all.

    Results that two experiments share are computed once. The arguments are those of `reproduce`.

    Returns:
        The page, ``out/report/index.html``.

    Raises:
        InputError: none of the models of any experiment is there.
    """
    out, done = Path(out), []
    out.mkdir(parents=True, exist_ok=True)
    options = {"data": data, "scale": scale, "runs": runs, "overrides": overrides}
    for name in list_experiments():
        try:
            reproduce(name, out / name, reuse=out, **options)  # type: ignore[arg-type]
            done.append(out / name)
        except NoModelError as error:
            Terminal().print(f"{name} is left out: {error}")
    if not done:
        raise NoModelError(f"none of the models of the paper is in {runs}, and none is shipped")
    if Processes().main:
        run_appendix(out / APPENDIX)
        write_report([*done, out / APPENDIX], out / "report", "Tables and figures of the paper")
    return out / "report" / "index.html"


def reproduce(
    name: str,
    out: str | Path,
    *,
    data: str | ImageData,
    scale: str = "short",
    runs: str | Path = "runs",
    overrides: Sequence[str] = (),
    reuse: str | Path | None = None,
) -> Path:
    """Run the experiment ``name``; write its rows, figures and ``report/index.html``.

    Args:
        name: such as ``"table1"``; see `experiments`.
        out: folder; finished work in it is not done again.
        data: where the images are, or the images.
        scale: ``"smoke"``, ``"short"`` or ``"paper"``.
        runs: folder of trained models, each named as in the recipe; shipped models replace those
            that are not there.
        overrides: ``key=value`` changes to every sweep.
        reuse: folder of other experiments, whose rows of the same settings are copied.

    Returns:
        The comparison with the paper, a Markdown file.

    Raises:
        InputError: there is no such experiment, or none of its models.
    """
    experiment, out = load_experiment(name, scale, runs), Path(out)
    others = _others(reuse, out) if reuse is not None else []
    console, main = Terminal(), Processes().main
    source = data if isinstance(data, str) else data.name
    sweeps = experiment.sweeps([f"data={source}", *overrides])
    wanted, ready, missing = experiment.checked_figures(), {}, {}
    for part, recipe in sweeps.items():
        models, lacking = _find_models(recipe, Path(runs))
        if models:
            ready[part] = replace(recipe, models=models)
        if lacking:
            missing[part] = lacking
            console.print(f"left out: {part} of {', '.join(lacking)}, not trained in {runs}")
        for model, place in models.items():
            console.print(f"{part}: {model} is {place}")
    if not ready:
        raise NoModelError(f"none of the models of {name} is in {runs}, and none is shipped")
    for part, recipe in ready.items():
        images = None if isinstance(data, str) else choose_images(data, recipe.limit, recipe.first)
        run_sweep(recipe, out / part, data=images, reuse=others)
    if main:
        found = {part: records(rows) for part in ready if (rows := collect(out / part).rows)}
        figures = _draw(wanted, found, out / "figures")
        notes = [f"Not measured: {part} of {', '.join(lack)}." for part, lack in missing.items()]
        if len(figures) < len(wanted):
            fewer = len(wanted) - len(figures)
            notes.append(
                f"Not drawn, with fewer than two points: {fewer} of {len(wanted)} figures."
            )
        compared = compare(experiment, found, [*notes, _NOTE], figures)
        write_comparison(compared, out, name)
        write_report([out], out / "report", experiment.title)
    return out / f"{name}.md"


def _others(folder: str | Path, out: Path) -> list[Path]:
    """Return the sweeps in ``folder``, without those of ``out``."""
    if not Path(folder).is_dir():
        raise InputError(f"no folder {folder} to reuse")
    found = sorted({path.parent.parent for path in Path(folder).rglob("rows/*.parquet")})
    return [each for each in found if out.resolve() not in each.resolve().parents]


def compare(
    experiment: Experiment,
    found: Mapping[str, list[Record]],
    notes: Sequence[str] = (),
    figures: Sequence[str] = (),
) -> Comparison:
    """Return the published beside the measured numbers; unknown cells are empty."""
    lines = []
    for row in experiment.published:
        ours = _matching(found.get(row.get("part", ""), []), row.get("at", {}))
        cells = [f"{row[key]:g}" if key in row else "" for key in MEASURES]
        cells += [accuracy_text(ours[key]) if ours else "" for key in MEASURES]
        cells.append(str((ours["attacked"] or ours["clean"])["images"]) if ours else "")
        lines.append([str(row["row"]), *cells])
    description = " ".join(experiment.description.split())
    heads, command = _HEADS if lines else [], made_by().get("command", "")
    return Comparison(experiment.title, description, heads, lines, [*notes], [*figures], command)


def _matching(found: Sequence[Record], at: Mapping[str, Any]) -> Record | None:
    """Return the only record with these values; of several, none is clearly meant."""
    fits = [
        record
        for record in found
        if all(_same(record.get(name), value) for name, value in at.items())
    ]
    return fits[0] if len(fits) == 1 else None


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, float) and isinstance(two, int | float):
        return abs(one - two) < 1e-9
    if isinstance(one, str) and isinstance(two, str) and "(" in one and "(" in two:
        return Component.of(one) == Component.of(two)  # 2/255 and 0.00784... are one
    return bool(one == two)


def _find_models(recipe: SweepRecipe, runs: Path) -> tuple[dict[str, str], list[str]]:
    """Return the place of each model, and the missing ones; all are missing without the sources."""
    places = {name: place_of(path, runs) for name, path in recipe.named.items()}
    lacking = [path for name, path in recipe.named.items() if places[name] is None]
    sources = [Component.of(attack).options.get("source") for attack in recipe.attacks]
    absent = [each for each in sources if isinstance(each, str) and not is_model(each)]
    if absent:
        return {}, sorted({*lacking, *absent})
    return {name: place for name, place in places.items() if place is not None}, lacking


def _draw(wanted: Sequence[Figure], found: Mapping[str, list[Record]], folder: Path) -> list[str]:
    """Draw the figures that have at least two points; return the names of their PNGs."""
    names = []
    for number, figure in enumerate(wanted, start=1):
        if figure.part not in found:
            continue
        part = [
            record
            | {"family": str(record["attack"]).partition("(")[0]}
            | {"gradients": (record["attacked"] or {}).get("backwards")}
            for record in found[figure.part]
        ]
        shown = [r for r in part if all(_same(r.get(k), v) for k, v in figure.at.items())]
        if len({record.get(figure.axis) for record in shown if record["attacked"]} - {None}) < 2:
            continue
        stem = folder / f"{number}-{figure.part.replace(' ', '_')}-{figure.axis}"
        fixed = ", ".join(f"{k} {v}" for k, v in figure.at.items())
        title = f"{figure.part}{': ' if fixed else ''}{fixed}"
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
        draw_curves(shown, figure.axis, figure.series, paths, title)
        names.append(paths[0].name)
    return names
