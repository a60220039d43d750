"""What commands print before and after: changed settings, other results, the kept epoch, harm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from smoothinfer.errors import InputError
from smoothinfer.evaluation.subject import NORMS, cell_text
from smoothinfer.numerics.randomness import derive_seed, isolated_rng
from smoothinfer.numerics.statistics import proportion
from smoothinfer.recipes import Recipe
from smoothinfer.runtime.files import read_json, write_json
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.training.history import ALARM, History, score_of

_START = "start.json"  # in the folder of a run


def say_nothing(recipe: Recipe) -> None:
    """Take no notice of the recipe of a training."""
    del recipe


def changes(written: dict[str, Any], used: dict[str, Any], place: str = "") -> list[str]:
    """Return the keys whose values differ from the recipe as it is written, a line for each.

    >>> changes({"lr": 0.1, "attack": {"steps": 7}}, {"lr": 0.1, "attack": {"steps": 9}})
    ['  attack.steps: 9 (the recipe: 7)']
    """
    found = []
    for key, value in used.items():
        before, name = written.get(key), f"{place}{key}"
        if isinstance(value, dict) and isinstance(before, dict):
            found += changes(before, value, f"{name}.")
        elif value != before and key != "description":
            found.append(f"  {name}: {value} (the recipe: {before})")
    return found


def results_of_others(out: Path, settings: dict[str, Any]) -> str:
    """Say that a folder holds results of another model or other images, and what becomes of them.

    Args:
        out: the folder.
        settings: of this command, as ``settings.json`` keeps them.
    """
    try:
        before = read_json(out / "settings.json")
        models = {name: before["weights"].get(name) for name in _models(before["asked"])}
        data = before["data"]["name"], before["data"]["hash"]
    except (InputError, OSError, LookupError, TypeError, AttributeError):
        return ""  # there are no results, or they are of another program
    now = {name: settings["weights"].get(name) for name in _models(settings["asked"])}
    if models == now and data[1] == settings["data"]["hash"]:
        return ""
    return (
        f"{out} held results of {', '.join(map(str, models))} on {data[0]}: their rows stay in "
        "rows/, and table and summary are now of this command alone"
    )


def _models(asked: dict[str, Any]) -> list[str]:
    """Return the models that a command or a recipe named."""
    models = asked["models"] if "models" in asked else [asked["model"]]
    return [*models]


def measure_start(
    check: Callable[[nn.Module], dict[str, float]],
    model: nn.Module,
    recipe: Recipe,
    images: int,
    out: Path,
) -> None:
    """Print how accurate the weights are that a training starts from; keep it in ``start.json``.

    Args:
        check: model -> measured values, as after every epoch.
        model: with these weights.
        recipe: of the training; one without ``init_from`` starts from chance.
        images: number of them that ``check`` measures.
        out: folder of the run.
    """
    (out / _START).unlink(missing_ok=True)  # of a run before this one
    if recipe.init_from is None:
        return
    with isolated_rng(derive_seed(recipe.seed, "validate", "start")):
        found = check(model.to(Processes().device))
    write_json(out / _START, found | {"images": images})
    told = f"at the start: {_shares(found)} in one pass, {images} held-out images"
    Terminal().print(told, markup=False)


def subject(recipe: Recipe) -> str:
    """Say by which attack, within which ball, a training is measured."""
    radius, norm = cell_text(float(recipe.build_ball().radius)), recipe.ball.name
    within = f"{radius} in {NORMS.get(norm, norm)}"
    return f"attacked: held-out images after {recipe.measured_by} within {within}"


def ending(out: Path, history: History, recipe: Recipe, compare: bool = True) -> list[str]:
    """Say which epoch of a run was kept, and warn where the training has done harm.

    Args:
        out: folder of the run.
        history: of the run.
        recipe: of the run.
        compare: with the start; a few steps to see that it runs are no better, and do no harm.
    """
    score = recipe.validation.score
    best = max(history.epochs, key=lambda row: score_of(row, score))
    place = f"number {best['epoch']:.0f} of {len(history.epochs)} epochs"
    why = "the last" if score == "last" else f"best {score}"
    kept = f"{out}: {place} was kept, {why}: {_shares(best)} in one pass"
    worse = _worse_than_start(out, best, recipe) if compare else []
    return [kept, *worse, *_collapsed(history)]


def _worse_than_start(out: Path, best: dict[str, float], recipe: Recipe) -> list[str]:
    """Say that the kept epoch is no better than the weights that the training started from."""
    score, path = recipe.validation.score, out / _START
    if recipe.init_from is None or score == "last" or not path.exists():
        return []
    start = read_json(path, "delete it: nothing else needs it")
    if best[score] >= start[score]:
        return []
    before, after = (
        proportion(_count(row[score], start), start["images"]) for row in (start, best)
    )
    harm = before.low > after.high  # beyond the luck of few images
    told = "worse than the start" if harm else "no better than the start"
    return [
        f"warning: this is {told} ({_shares(start)})"
        f"{': the training has done harm' if harm else ''}. Try a lower rate (--set "
        f"lr={recipe.lr / 10:g}), fewer epochs, or a recipe for these data, with another --out"
    ]


def _count(share: float, start: dict[str, Any]) -> int:
    return round(share * start["images"])


def _collapsed(history: History) -> list[str]:
    """Repeat the warning of a collapse, which may stand many lines above."""
    epochs = [f"{row['epoch']:.0f}" for row in history.epochs if row.get("collapsed")]
    if not epochs:
        return []
    many = f"{len(epochs)} epoch{'s' if len(epochs) > 1 else ''}"
    return [f"warning: in {many}, from number {epochs[0]} on, {ALARM}"]


def _shares(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {100 * row[name]:.1f} %" for name in ("clean", "attacked"))
