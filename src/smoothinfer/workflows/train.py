"""A training run: recipe and data in, a folder of checkpoints, cards and a log out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from smoothinfer.checkpoints import save_checkpoint, start_card, start_from
from smoothinfer.data import ImageData, held_out_rows, hold_out, told_of
from smoothinfer.errors import InputError
from smoothinfer.runtime.files import read_json, write_json, write_whole
from smoothinfer.runtime.modes import device_of, evaluating
from smoothinfer.noise import NoisyModel
from smoothinfer.runtime.processes import Processes
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.provenance import made_by
from smoothinfer.recipes import Normalisation, Recipe, recipe_from
from smoothinfer.reporting.figures import noise_course
from smoothinfer.training.history import Course
from smoothinfer.training.loop import train
from smoothinfer.training.losses import Craft, craft

# May change from one part of a run to the next.
_FREE = ("about", "compile", "save_seconds", "trackers")
_JUDGING_DRAWS = 8
_BATCH = 128


def train_run(recipe: Recipe, data: ImageData, out: str | Path) -> Course:
    """Train ``recipe`` on ``data``; the same call resumes a run that was cut off.

    ``out`` receives ``recipe.yaml`` (resolved), ``best.safetensors`` and ``last.safetensors``
    with their cards, ``log.json`` (one entry per epoch) and ``state.pt`` (to resume).

    Args:
        recipe: what to train.
        data: the training split; validation images are held out from it.
        out: folder of the run.

    Raises:
        InputError: the folder holds a run of another recipe, or the recipe does not fit.
    """
    out = Path(out)
    start = None if recipe.start is None else start_card(recipe.start)
    recipe = _normalised(recipe, data, start)
    model: NoisyModel = recipe.build_model(data.shape, len(data.classes))
    if recipe.start is not None and not (out / "state.pt").exists():
        start_from(model, recipe.start)
    _check_classes(model, data)
    loss, settings = recipe.build_loss(), recipe.training()
    rest, held = hold_out(data, recipe.validation.held_out)
    _check_unseen(recipe, data, start)
    begun = {} if start is None else {"start_sha256": start["sha256"]}
    _claim(out, recipe, data, begun)
    about = {"name": data.name, "hash": data.hash, "images": len(rest), "held_out": len(held)}

    def save(name: str, trained: nn.Module, row: dict[str, Any]) -> None:
        path = out / f"{name}.safetensors"
        more = {"data": about, "results": {"validation": row}, **begun}
        save_checkpoint(path, trained, recipe, data.shape, data.classes, **more)
        if name == "last" and isinstance(trained, NoisyModel):
            _keep_strengths(out, int(row["epoch"]), strengths_on(trained, judged))

    judged = held[: recipe.validation.images]
    judge = partial(validate, data=judged, attack=recipe.build_judge())
    alarm = recipe.loss.name != "natural"  # no attack to overfit to
    course = train(model, loss, rest, settings, out, judge, save, recipe.validation.score, alarm)
    if Processes().main:
        write_json(out / "log.json", {"epochs": course.epochs, **made_by(), "data": about})
    return course


def _keep_strengths(out: Path, epoch: int, strengths: dict[str, float]) -> None:
    """Add an epoch to ``strengths.json``, and draw the course of every layer's noise."""
    if not strengths:
        return
    path = out / "strengths.json"
    course = read_json(path) if path.exists() else {}
    course[str(epoch)] = strengths
    write_json(path, course)
    noise_course(course, out / "noise.png")


def validate(model: nn.Module, data: ImageData, attack: Craft) -> dict[str, float]:
    """Return the share of ``data`` that one noisy pass gets right, clean and attacked.

    It is the mean over several passes: with noise on the weights all images of a pass share one
    draw, and the luck of a single one would choose the epoch.
    """
    device = next(model.parameters()).device
    draws = _JUDGING_DRAWS if isinstance(model, NoisyModel) else 1
    right = {"clean": 0, "attacked": 0}
    for rows in torch.arange(len(data)).split(_BATCH):
        part = data[rows]
        images, labels = part.images.to(device), part.labels.to(device)
        moved = craft(attack, model, images, labels)
        with evaluating(model), torch.no_grad():
            for name, seen in (("clean", images), ("attacked", moved)):
                answers = torch.stack([model(seen).argmax(1) for _ in range(draws)])
                right[name] += int((answers == labels).sum())
    measured = {name: count / (draws * len(data)) for name, count in right.items()}
    if isinstance(model, NoisyModel) and (strengths := strengths_on(model, data)):
        measured["noise"] = sum(strengths.values()) / len(strengths)
    return measured


def strengths_on(model: NoisyModel, data: ImageData) -> dict[str, float]:
    """Return the learned noise of every place, that of activations as on images of ``data``."""
    device = next(model.parameters()).device
    with evaluating(model):
        return model.strengths(data[:_BATCH].images.to(device))


def _normalised(recipe: Recipe, data: ImageData, start: dict[str, Any] | None) -> Recipe:
    """Fill in the normalisation, from the model to start from or the data, where it is open."""
    if start is not None:
        theirs = recipe_from(start["recipe"], "the recipe of the start").normalise
        if recipe.normalise.mean is None and recipe.normalise.std is None:
            return replace(recipe, normalise=theirs)
        if recipe.normalise != theirs:
            raise InputError(
                f"{recipe.start} was trained with {theirs}, so it cannot start this recipe with "
                f"{recipe.normalise}: leave normalise out"
            )
    if recipe.normalise.mean is not None and recipe.normalise.std is not None:
        return recipe
    pixels = data.pixels.transpose(0, 1).flatten(1).double() / 255
    mean = [round(value, 3) for value in pixels.mean(1).tolist()]
    std = [max(round(value, 3), 1e-3) for value in pixels.std(1).tolist()]
    return replace(recipe, normalise=Normalisation(mean, std))


def _check_classes(model: NoisyModel, data: ImageData) -> None:
    """Refuse a network that does not answer with one logit for each class."""
    with isolated_rng(0), evaluating(model), torch.no_grad():
        image = data[:1].images
        answers = model(image.to(device_of(model, image)))
    if not isinstance(answers, torch.Tensor):
        raise InputError(
            f"the model answers with a {type(answers).__name__}, not with logits: wrap a network "
            "of transformers in smoothinfer.LogitsOf"
        )
    if answers.shape != (1, len(data.classes)):
        raise InputError(
            f"the model answers an image with {tuple(answers.shape[1:])} logits, {data.name} has "
            f"{len(data.classes)} classes: set the number of classes among the model's options"
        )


def _check_unseen(recipe: Recipe, data: ImageData, start: dict[str, Any] | None) -> None:
    """Refuse to judge by images that the model to start from was trained on."""
    told = (start or {}).get("data", {})
    theirs = told_of(data, told)
    if theirs is None:
        return  # of other images, or nobody knows
    trained_on, _ = held_out_rows(len(theirs), told["held_out"])
    _, judged_by = held_out_rows(len(data), recipe.validation.held_out)
    if torch.isin(judged_by, trained_on).any():
        more = (
            f"give --limit {len(theirs)}, as there"
            if len(theirs) < len(data)
            else f"set validation.held_out to {told['held_out']} or less"
        )
        raise InputError(
            f"{recipe.start} was trained on images that this run would hold out: {more}"
        )


def _claim(out: Path, recipe: Recipe, data: ImageData, begun: dict[str, Any]) -> None:
    """Write the resolved recipe, or make sure that the folder holds this very run."""
    path = out / "recipe.yaml"
    if path.exists() and (out / "state.pt").exists():  # else nothing was trained yet
        held = yaml.safe_load(path.read_text())
        other = ["data"] if held.pop("data", None) != data.hash else []
        if held.pop("start_sha256", None) not in (None, begun.get("start_sha256")):
            other.append("the weights of start")
        # Compared as recipes, so that an option added since does not shut out an older run.
        held = {key: value for key, value in held.items() if key not in _FREE}
        before, now = recipe_from(held, str(path)).written(), recipe.written()
        other += [key for key in now if before[key] != now[key] and key not in _FREE]
        if other:
            raise InputError(
                f"{out} holds a run of another recipe or other data (see {path}), they differ in "
                f"{', '.join(other)}: choose another --out"
            )
    if not Processes().main:
        return
    content = yaml.safe_dump(recipe.written() | {"data": data.hash} | begun, sort_keys=False)
    write_whole(path, lambda file: file.write(content.encode()))
