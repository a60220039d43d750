"""``smoothinfer train``: recipe and data in; a folder of checkpoints, cards and a log out."""

import contextlib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import nn

from smoothinfer.checkpoints import card_of_start, load_weights_into, save_checkpoint
from smoothinfer.cli.options import DATA_HELP, add_recipe, recipe_file
from smoothinfer.data import ImageData, held_out_rows, hold_out, images_of_training, load_data
from smoothinfer.engine.members import SeededPasses
from smoothinfer.engine.tally import count_first
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.noise import NoisyModel
from smoothinfer.recipes import Normalisation, Recipe, load_recipe, recipe_from
from smoothinfer.reporting.figures import strength_history
from smoothinfer.runtime.checksums import check_content, with_checksum
from smoothinfer.runtime.files import read_json, write_json, write_text
from smoothinfer.runtime.locks import hold_folder
from smoothinfer.runtime.modes import count_classes, device_of, eval_mode
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.training.history import History
from smoothinfer.training.loop import train
from smoothinfer.training.losses import Craft, craft
from smoothinfer.training.state import read_identity

# Recipe keys that may change from one part of a run to the next.
_FREE = ("description", "compile", "save_seconds", "trackers")
_VALIDATION_DRAWS = 8
_BATCH = 128
_SMOKE_IMAGES = 256


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, "cifar10/cni-w.yaml")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder of the run; the same one resumes it")
    parser.add_argument("--limit", type=int, help="number of training images, the first ones")


def run(options: Namespace) -> int:
    recipe = load_recipe(recipe_file(options), options.set, options.scale)
    recipe.build_loss()
    smoke = options.limit is None and options.scale == "smoke"
    data = load_data(options.data, "train", _SMOKE_IMAGES if smoke else options.limit)
    console = Console(quiet=not Processes().main, highlight=False)
    console.print(yaml.safe_dump(recipe.to_dict(), sort_keys=False), markup=False)
    if recipe.risk:
        console.print(f"warning: {recipe.risk}", style="yellow")
    history = train_run(recipe, data, options.out)
    last = history.epochs[-1]
    console.print(f"{options.out}: {len(history.epochs)} epochs, last {last}", markup=False)
    return 0


def train_run(recipe: Recipe, data: ImageData, out: str | Path) -> History:
    """Train ``recipe`` on ``data``; the same call resumes an interrupted run.

    ``out`` receives ``recipe.yaml`` (resolved), ``best.safetensors`` and ``last.safetensors``
    with their cards, ``log.json`` (one entry per epoch) and ``state.pt`` (to resume).

    Args:
        recipe: of the model and its training.
        data: the training split; validation images are held out from it.
        out: folder of the run.

    Raises:
        InputError: the folder holds a run of another recipe or of other code, or is being trained
            by another process; or the recipe does not fit.
        Stop: Ctrl-C or SIGTERM asked the training to stop; its state is saved.
    """
    with contextlib.ExitStack() as held:
        if Processes().main:  # for all processes of this training
            held.enter_context(hold_folder(out, "trained"))
        return _train(recipe, data, Path(out))


def _train(recipe: Recipe, data: ImageData, out: Path) -> History:
    start = None if recipe.init_from is None else card_of_start(recipe.init_from)
    recipe = _fill_normalisation(recipe, data, start)
    model: NoisyModel = recipe.build_model(data.shape, len(data.classes))
    if recipe.init_from is not None and not (out / "state.pt").exists():
        load_weights_into(model, recipe.init_from)
    _check_classes(model, data)
    loss = recipe.build_loss()
    training, held_out = hold_out(data, recipe.validation.held_out)
    _check_unseen(recipe, data, start)
    start_hash = {} if start is None else {"start_sha256": start["sha256"]}
    identity = {"recipe": recipe.to_dict(), "data": data.hash, **start_hash}
    identity["code"] = _code_of(model, loss)
    _check_resumable(out, identity)
    about: dict[str, Any] = {"name": data.name, "hash": data.hash}
    about |= {"images": len(training), "held_out": len(held_out)}
    validation = held_out[: recipe.validation.images]

    def save(name: str, trained: nn.Module, row: dict[str, Any]) -> None:
        path = out / f"{name}.safetensors"
        more = {"data": about, "results": {"validation": row}, **start_hash}
        save_checkpoint(path, trained, recipe, data.shape, data.classes, **more)
        if name == "last" and isinstance(trained, NoisyModel):
            _save_strengths(out, int(row["epoch"]), strengths_on(trained, validation))

    check = partial(validate, data=validation, attack=recipe.build_validation_attack())
    alarm = recipe.loss.name != "natural"  # there is no attack to overfit to
    score = recipe.validation.score
    history = train(model, loss, training, recipe, out, check, save, score, alarm, identity)
    if Processes().main:
        write_json(out / "log.json", {"epochs": history.epochs, **made_by(), "data": about})
    return history


def _save_strengths(out: Path, epoch: int, strengths: dict[str, float]) -> None:
    """Add an epoch to ``strengths.json``, and draw the history of every layer's noise."""
    if not strengths:
        return
    history = _strengths_before(out, epoch)
    history[str(epoch)] = strengths
    write_json(out / "strengths.json", history)
    strength_history(history, out / "noise.png")


def _strengths_before(out: Path, epoch: int) -> dict[str, dict[str, float]]:
    path = out / "strengths.json"
    if epoch == 1 or not path.exists():
        return {}
    return dict(read_json(path, f"delete it: {out / 'noise.png'} then begins with this epoch"))


def validate(model: nn.Module, data: ImageData, attack: Craft) -> dict[str, float]:
    """Return the share of ``data`` that one noisy pass gets right, clean and attacked.

    It is the mean over several passes: with noise on the weights all images of a pass share one
    draw, and the luck of a single one would choose the epoch.

    Args:
        model: on any device, in any mode.
        data: the validation images.
        attack: (model, images, labels) -> adversarial images.
    """
    device = device_of(model)
    draws = _VALIDATION_DRAWS if isinstance(model, NoisyModel) else 1
    right = {"clean": 0, "attacked": 0}
    for rows in torch.arange(len(data)).split(_BATCH):
        part = data[rows]
        images, labels = part.images.to(device), part.labels.to(device)
        adversarial = craft(attack, model, images, labels)
        with eval_mode(model), torch.no_grad():
            for name, shown in (("clean", images), ("attacked", adversarial)):
                counts = count_first(SeededPasses(model), shown, draws)
                right[name] += int(counts.gather(1, labels[:, None]).sum())
    measured = {name: count / (draws * len(data)) for name, count in right.items()}
    if isinstance(model, NoisyModel) and (strengths := strengths_on(model, data)):
        measured["noise"] = sum(strengths.values()) / len(strengths)
    return measured


def strengths_on(model: NoisyModel, data: ImageData) -> dict[str, float]:
    """Return the learned noise of every place, that of activations as on images of ``data``."""
    with eval_mode(model):
        return model.strengths(data[:_BATCH].images.to(device_of(model)))


def _fill_normalisation(recipe: Recipe, data: ImageData, start: dict[str, Any] | None) -> Recipe:
    """Fill in an open normalisation, from the model to start from or from the data."""
    if start is not None:
        theirs = recipe_from(start["recipe"], "the recipe of init_from").normalise
        if recipe.normalise.mean is None and recipe.normalise.std is None:
            return replace(recipe, normalise=theirs)
        if recipe.normalise != theirs:
            raise InputError(
                f"{recipe.init_from} was trained with {theirs}, so it cannot start this recipe "
                f"with {recipe.normalise}: leave normalise out"
            )
    if recipe.normalise.mean is not None and recipe.normalise.std is not None:
        return recipe
    pixels = data.pixels.transpose(0, 1).flatten(1).double() / 255
    mean = [round(value, 3) for value in pixels.mean(1).tolist()]
    std = [max(round(value, 3), 1e-3) for value in pixels.std(1).tolist()]
    return replace(recipe, normalise=Normalisation(mean, std))


def _check_classes(model: NoisyModel, data: ImageData) -> None:
    """Refuse a network that does not answer with one logit for each class."""
    with eval_mode(model):
        classes = count_classes(model, data[:1].images)
    if classes != len(data.classes):
        raise InputError(
            f"the model answers an image with {classes} logits, {data.name} has "
            f"{len(data.classes)} classes: set the number of classes among the model's options"
        )


def _check_unseen(recipe: Recipe, data: ImageData, start: dict[str, Any] | None) -> None:
    """Refuse to validate on images that the model to start from was trained on."""
    card = (start or {}).get("data", {})
    theirs = images_of_training(data, card)
    if theirs is None:
        return  # trained on other images, or on unknown ones
    trained_on, _ = held_out_rows(len(theirs), card["held_out"])
    _, validation = held_out_rows(len(data), recipe.validation.held_out)
    if torch.isin(validation, trained_on).any():
        remedy = (
            f"give --limit {len(theirs)}, as there"
            if len(theirs) < len(data)
            else f"set validation.held_out to {card['held_out']} or less"
        )
        raise InputError(
            f"{recipe.init_from} was trained on images that this run would hold out: {remedy}"
        )


def _code_of(*values: object) -> dict[str, str]:
    """Return the digests of all code that ``values`` run, by name."""
    prints = Fingerprint()
    prints.of(*values)
    return prints.code


def _check_resumable(out: Path, identity: dict[str, Any]) -> None:
    """Write the resolved recipe, or make sure that the folder holds this very run."""
    path = out / "recipe.yaml"
    _check_recipe_file(path)
    saved = read_identity(out / "state.pt")
    if saved is not None:  # else nothing was trained yet
        _strengths_before(out, epoch=2)
        _refuse_another_run(out, saved, identity)
        _refuse_other_code(out, saved["code"], identity["code"])
    if Processes().main:
        rest = {name: value for name, value in identity.items() if name not in ("recipe", "code")}
        content = with_checksum(identity["recipe"] | rest)
        write_text(path, yaml.safe_dump(content, sort_keys=False))


def _check_recipe_file(path: Path) -> None:
    """Refuse a ``recipe.yaml`` of a run that somebody edited: that would change nothing."""
    remedy = (
        "delete it, and train writes it again; to change a recipe, give --set or another recipe "
        "file, and another --out"
    )
    if not path.exists():
        return
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is damaged or was edited (it is no YAML): {remedy}") from error
    check_content(content if isinstance(content, dict) else {"": content}, path, remedy)


def _refuse_another_run(out: Path, saved: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    other = ["data"] if saved["data"] != identity["data"] else []
    if saved.get("start_sha256") not in (None, identity.get("start_sha256")):
        other.append("the weights of init_from")
    # Compared as recipes, so that an option added since does not shut out an older run.
    kept = {key: value for key, value in saved["recipe"].items() if key not in _FREE}
    before, now = recipe_from(kept, str(out / "state.pt")).to_dict(), identity["recipe"]
    other += [key for key in now if before[key] != now[key] and key not in _FREE]
    if other:
        raise InputError(
            f"{out} holds a run of another recipe or other data (see {out / 'recipe.yaml'}), they "
            f"differ in {', '.join(other)}: choose another --out"
        )


def _refuse_other_code(out: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on with a network, loss or attack whose code has changed."""
    changed = [name for name in sorted({**before, **now}) if before.get(name) != now.get(name)]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise InputError(
            f"{out} was begun with other code of {', '.join(changed[:3])}{more}: restore that "
            "code, or choose another --out"
        )
