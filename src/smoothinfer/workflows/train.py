"""``smoothinfer train``: recipe and data in; a folder of checkpoints, cards and a log out."""

import contextlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smoothinfer.checkpoints import save_checkpoint
from smoothinfer.cli.options import DATA_HELP, add_limit, add_recipe, recipe_file
from smoothinfer.data import (
    ImageData,
    checked_limit,
    choice_name,
    choose_images,
    choose_rows,
    hold_out,
    load_data,
)
from smoothinfer.engine.members import SeededPasses
from smoothinfer.engine.tally import count_first
from smoothinfer.errors import InputError, counted_from_one
from smoothinfer.noise import NoisyModel
from smoothinfer.recipes import Normalisation, Recipe, load_recipe, recipe_from
from smoothinfer.reporting.strength_figures import strength_history
from smoothinfer.run_folder import check_resumable, code_of
from smoothinfer.runtime.compile_cache import compile_cache
from smoothinfer.runtime.files import read_json, write_json
from smoothinfer.runtime.locks import hold_folder
from smoothinfer.runtime.modes import count_classes, device_of, eval_mode
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.start_weights import card_of_start, load_network_into, load_weights_into
from smoothinfer.state_dicts import digest_of_file, is_state_dict, load_state_dict_into
from smoothinfer.training.crafting import Craft, craft
from smoothinfer.training.history import History
from smoothinfer.training.loop import train
from smoothinfer.workflows.held_out import check_unseen, fill_held_out
from smoothinfer.workflows.run_notes import changes, ending, measure_start, say_nothing, subject

_VALIDATION_DRAWS = 8
_BATCH = 128
_SMOKE_IMAGES = 256


def add_arguments(parser: ArgumentParser) -> None:
    add_recipe(parser, "cifar10/cni-w.yaml")
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder of the run; the same one resumes it")
    add_limit(parser)
    parser.add_argument(
        "--compile-cache",
        metavar="FILE",
        help="keep the work of the compiler (recipe key compile) in FILE, and take up what is "
        "there; it holds code, so use only a file of your own",
    )


def run(options: Namespace) -> int:
    recipe = load_recipe(recipe_file(options), options.set, options.scale)
    recipe.build_loss()
    limit, smoke = checked_limit(options.limit), options.scale == "smoke"
    if smoke:
        limit = min(_SMOKE_IMAGES, limit or _SMOKE_IMAGES)
    data = load_data(options.data, "train")
    console = Terminal(quiet=not Processes().main)

    def announce(resolved: Recipe) -> None:
        scale = "" if options.scale == "short" else f" at scale {options.scale}"
        used, held = min(limit or len(data), len(data)), resolved.validation.held_out or 0
        told = f"{used - held:,} images of {data.name} train, {held:,} are held out"
        console.print(f"{options.recipe}{scale}: {told}", markup=False)
        console.print(subject(resolved), markup=False)
        written = load_recipe(recipe_file(options), (), options.scale).to_dict()
        for line in changes(written, resolved.to_dict()):
            console.print(line, markup=False)
        if recipe.risk:
            console.print(f"warning: {recipe.risk}", style="yellow")

    how = {"limit": limit, "first": options.first, "announce": announce}
    with compile_cache(options.compile_cache):
        history = train_run(recipe, data, options.out, **how)  # type: ignore[arg-type]
    for line in ending(Path(options.out), history, recipe, compare=not smoke):
        console.print(line, markup=False)
    return 0


def train_run(
    recipe: Recipe,
    data: ImageData,
    out: str | Path,
    *,
    limit: int | None = None,
    first: bool = False,
    announce: Callable[[Recipe], object] = say_nothing,
) -> History:
    """Train ``recipe`` on ``data``; the same call resumes an interrupted run.

    ``out`` receives ``recipe.yaml`` (resolved), ``best.safetensors`` and ``last.safetensors``
    with their cards, ``log.json`` (one entry per epoch), ``state.pt`` (to resume), and of a
    training that starts from weights ``start.json``, how accurate these are.

    Args:
        recipe: of the model and its training.
        data: the whole training split, in which the images of other runs are found again.
        out: folder of the run.
        limit, first: how many images of it are used, and which, see `choose_rows`; validation
            images are held out from these.
        announce: called with the recipe as it is used, after all checks.

    Raises:
        InputError: the folder holds a run of another recipe or of other code, or is being trained
            by another process; or the recipe does not fit.
        Stop: Ctrl-C or SIGTERM asked the training to stop; its state is saved.
    """
    with contextlib.ExitStack() as held:
        if Processes().main:  # for all processes of this training
            held.enter_context(hold_folder(out, "trained"))
        return _train(recipe, data, Path(out), limit, first, announce)


def _train(
    recipe: Recipe,
    split: ImageData,
    out: Path,
    limit: int | None,
    first: bool,
    announce: Callable[[Recipe], object],
) -> History:
    rows = choose_rows(split.labels, limit, first)
    data = choose_images(split, limit, first)
    plain = recipe.init_from is not None and is_state_dict(recipe.init_from)
    start = None if recipe.init_from is None or plain else card_of_start(recipe.init_from)
    recipe = _fill_normalisation(recipe, data, start)
    recipe = fill_held_out(recipe, split, rows, start)
    _check_crop(recipe, data)
    fresh = not (out / "state.pt").exists()
    model = _start_model(recipe, data, start, fresh)
    _check_classes(model, data)
    loss = recipe.build_loss()
    assert recipe.validation.held_out is not None
    training, held_out = hold_out(data, recipe.validation.held_out)
    check_unseen(recipe, split, rows, start)
    start_hash = {} if start is None else {"start_sha256": start["sha256"]}
    start_hash |= {"start_sha256": digest_of_file(str(recipe.init_from))} if plain else {}
    identity = {"recipe": recipe.to_dict(), "data": data.hash, **start_hash}
    identity["code"] = code_of(model, loss)
    if check_resumable(out, identity):
        _strengths_before(out, epoch=2)
    about: dict[str, Any] = {"name": data.name, "hash": data.hash}
    about |= {"images": len(training), "held_out": len(held_out)}
    about |= {} if limit is None else {"choice": choice_name(limit, first)}
    announce(recipe)
    validation = choose_images(held_out, recipe.validation.images, recipe.validation.first)

    def save(name: str, trained: nn.Module, row: dict[str, Any]) -> None:
        path = out / f"{name}.safetensors"
        more = {"data": about, "results": {"validation": row}, **start_hash}
        save_checkpoint(path, trained, recipe, data.shape, data.classes, **more)
        if name == "last" and isinstance(trained, NoisyModel):
            _save_strengths(out, int(row["epoch"]), strengths_on(trained, validation))

    check = partial(validate, data=validation, attack=recipe.build_validation_attack())
    if fresh and Processes().main:
        measure_start(check, model, recipe, len(validation), out)
    alarm = recipe.loss.name != "natural"  # there is no attack to overfit to
    score = recipe.validation.score
    history = train(model, loss, training, recipe, out, check, save, score, alarm, identity)
    if Processes().main:
        write_json(out / "log.json", {"epochs": history.epochs, **made_by(), "data": about})
    return history


def _start_model(
    recipe: Recipe, data: ImageData, start: dict[str, Any] | None, fresh: bool
) -> NoisyModel:
    """Build the model; a ``fresh`` run gets the weights of the model to start from."""
    sizes = data.shape, len(data.classes)
    name = recipe.init_from
    if name is None or not fresh:
        return recipe.build_model(*sizes)
    if start is None:  # behind the normalisation, which is the package's own layer
        given = partial(load_state_dict_into, name=name)
        return recipe.build_model(*sizes, prepare=lambda network: given(network[1]))  # type: ignore[index]
    if recipe.defence is not None and start["recipe"].get("defence") is None:
        return recipe.build_model(*sizes, prepare=partial(load_network_into, name=name))
    model: NoisyModel = recipe.build_model(*sizes)
    load_weights_into(model, name)
    return model


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


def _check_crop(recipe: Recipe, data: ImageData) -> None:
    """Refuse shifts that move all of an image out of the picture."""
    height, width = data.shape[1:]
    if recipe.crop >= min(height, width):
        raise InputError(
            f"crop shifts by up to {recipe.crop} pixels, but the images of {data.name} are "
            f"{width}x{height}: set crop to less"
        )


def _check_classes(model: NoisyModel, data: ImageData) -> None:
    """Refuse a network that does not answer with one logit for each class."""
    with eval_mode(model):
        classes = count_classes(model, data[:1].images)
    if classes != len(data.classes):
        low, high = (int(end) for end in data.labels.aminmax())
        options = ": set the number of classes among the model's options"
        raise InputError(
            f"the model answers an image with {classes} logits, {data.name} has "
            f"{len(data.classes)} classes{counted_from_one(low, high, classes) or options}"
        )
