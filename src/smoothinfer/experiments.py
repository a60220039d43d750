"""``smoothinfer reproduce``: the tables and figures of the paper, our numbers beside its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from smoothinfer.checkpoints import find_checkpoint, shipped
from smoothinfer.components import Component
from smoothinfer.configuration import changed, filled, read_scaled
from smoothinfer.data import ImageData, load_data
from smoothinfer.errors import InputError, unknown
from smoothinfer.numerics.processes import Processes
from smoothinfer.reporting.collect import MEASURES, Record, collect, records, share
from smoothinfer.reporting.comparison import Comparison, write_comparison
from smoothinfer.reporting.curves import draw_curves
from smoothinfer.reporting.report import write_report
from smoothinfer.sweeps import SMOKE, SweepRecipe, run_sweep

_FOLDER = "paper"
_HEADS = ["", "paper: clean", "attacked", "ours: clean", "attacked", "images"]
_NOTE = "Ours: % with 95 % intervals over images; ± is the standard deviation over seeds."
_SHIPPED = "-resnet20-cifar10"  # what a shipped model is called after its recipe


@dataclass(frozen=True)
class Figure:
    """A picture of one part: accuracy along ``axis``, a curve for each ``series``.

    Besides the columns of the rows there are ``gradients`` (that the attack took for an image) and
    ``family`` (the attack without its options).

    ``at`` holds other columns fixed, such as ``{samples: 512}``.
    """

    part: str
    axis: str
    series: str = "rule"
    at: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One table or figure: sweeps that differ a little, and what the paper says.

    Attributes:
        title, about: what is shown.
        common: settings of every sweep, as in a sweep recipe.
        parts: a name for each sweep, and what is special to it.
        over: settings that replace those of all parts, as a scale may.
        figures: what is drawn.
        published: rows of the paper: ``row`` (its name), ``clean``, ``attacked`` in %, missing
            where not known; ``part`` and ``at`` say which of our settings it compares with.
    """

    title: str
    about: str = ""
    common: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, Any] = field(default_factory=dict)
    over: dict[str, Any] = field(default_factory=dict)
    figures: list[Any] = field(default_factory=list)
    published: list[Any] = field(default_factory=list)

    def sweeps(self, changes: Iterable[str] = ()) -> dict[str, SweepRecipe]:
        """Return the sweep of every part."""
        return {
            name: filled(SweepRecipe, changed(self.common | part | self.over, changes), name)
            for name, part in self.parts.items()
        }

    def drawn(self) -> list[Figure]:
        """Return the figures, checked."""
        return [filled(Figure, each, "figures") for each in self.figures]


def experiments() -> dict[str, Path]:
    """Return the files of the experiments that come with the package, by name."""
    folder = shipped("recipes", f"{_FOLDER}/table1.yaml").parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_experiment(name: str, scale: str = "short", runs: str | Path = "runs") -> Experiment:
    """Read the experiment ``name`` at ``scale``; ``{runs}`` in it is the folder of models.

    Raises:
        InputError: there is no such experiment or scale.
    """
    known = experiments()
    if name not in known:
        raise unknown("experiment", name, known)
    smoke = {"over": {**SMOKE, "attacks": ["pgd(steps=2)"]}}
    content = _placed(read_scaled(known[name], scale, smoke), str(runs))
    found: Experiment = filled(Experiment, content, str(known[name]))
    return found


def _placed(value: Any, runs: str) -> Any:
    if isinstance(value, Mapping):
        return {key: _placed(each, runs) for key, each in value.items()}
    if isinstance(value, list):
        return [_placed(each, runs) for each in value]
    return value.replace("{runs}", runs) if isinstance(value, str) else value


def reproduce(
    name: str,
    out: str | Path,
    *,
    data: str | ImageData,
    scale: str = "short",
    runs: str | Path = "runs",
    changes: Sequence[str] = (),
) -> Path:
    """Run the experiment ``name``; write its rows, figures and ``report/index.html``.

    Args:
        name: such as ``"table1"``; see `experiments`.
        out: folder; finished work in it is not done again.
        data: where the images are, or the images.
        scale: ``"smoke"``, ``"short"`` or ``"paper"``.
        runs: folder of trained models, each in a folder called as in the recipe; shipped models
            stand in for those that are not there.
        changes: ``key=value`` changes to every sweep.

    Returns:
        The comparison with the paper, a Markdown file.

    Raises:
        InputError: there is no such experiment, or none of its models.
    """
    experiment, out = load_experiment(name, scale, runs), Path(out)
    console, main = Console(highlight=False), Processes().main
    told = data if isinstance(data, str) else data.name
    sweeps = experiment.sweeps([f"data={told}", *changes])
    drawn, ready, missing = experiment.drawn(), {}, {}
    for part, recipe in sweeps.items():
        found, lacking = _found(recipe.named, Path(runs))
        if found:
            ready[part] = replace(recipe, models=found)
        if lacking:
            missing[part] = lacking
            console.print(f"left out: {part} of {', '.join(lacking)}, not trained in {runs}")
        for model, place in found.items():
            console.print(f"{part}: {model} is {place}")
    if not ready:
        raise InputError(f"none of the models of {name} is in {runs}, and none is shipped")
    for part, recipe in ready.items():
        images = load_data(data, recipe.split) if isinstance(data, str) else data
        run_sweep(recipe, out / part, data=images[: recipe.limit])
    if main:
        held = {part: records(rows) for part in ready if (rows := collect(out / part).rows)}
        figures = _draw(drawn, held, out / "figures")
        notes = [f"Not measured: {part} of {', '.join(lack)}." for part, lack in missing.items()]
        if len(figures) < len(drawn):
            fewer = len(drawn) - len(figures)
            notes.append(f"Not drawn, for want of points: {fewer} of {len(drawn)} figures.")
        write_comparison(comparison(experiment, held, [*notes, _NOTE], figures), out, name)
        write_report([out], out / "report", experiment.title)
    return out / f"{name}.md"


def comparison(
    experiment: Experiment,
    held: Mapping[str, list[Record]],
    notes: Sequence[str] = (),
    figures: Sequence[str] = (),
) -> Comparison:
    """Return what the paper says beside what was measured; unknown cells are empty."""
    lines = []
    for row in experiment.published:
        ours = _matching(held.get(row.get("part", ""), []), row.get("at", {}))
        cells = [f"{row[key]:g}" if key in row else "" for key in MEASURES]
        cells += [share(ours[key]) if ours else "" for key in MEASURES]
        cells.append(str((ours["attacked"] or ours["clean"])["images"]) if ours else "")
        lines.append([str(row["row"]), *cells])
    about = " ".join(experiment.about.split())
    return Comparison(experiment.title, about, _HEADS if lines else [], lines, [*notes], [*figures])


def _matching(found: Sequence[Record], at: Mapping[str, Any]) -> Record | None:
    """Return the only record with these values; several would leave open which is meant."""
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


def _found(named: Mapping[str, str], runs: Path) -> tuple[dict[str, str], list[str]]:
    """Return where each model is, and which are nowhere."""
    found, lacking = {}, []
    for name, path in named.items():
        shipped_as = path.replace("/", "-").removesuffix(".safetensors") + _SHIPPED
        places = [str(runs / path), path, shipped_as]
        here = next((place for place in places if _is_model(place)), None)
        if here is None:
            lacking.append(path)
        else:
            found[name] = here
    return found, lacking


def _is_model(place: str) -> bool:
    if ":" in place:
        return True
    try:
        path = find_checkpoint(place)
    except InputError:
        return False
    return path is not None and path.is_file()


def _draw(drawn: Sequence[Figure], held: Mapping[str, list[Record]], folder: Path) -> list[str]:
    """Draw the figures that have points enough; return the names of their PNGs."""
    names = []
    for number, figure in enumerate(drawn, start=1):
        if figure.part not in held:
            continue
        part = [record | _computed(record) for record in held[figure.part]]
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


def _computed(record: Record) -> Record:
    """Return columns to draw by: the attack without its options, and how many gradients it took."""
    spent = (record["attacked"] or {}).get("backwards")
    return {"family": str(record["attack"]).partition("(")[0], "gradients": spent}
