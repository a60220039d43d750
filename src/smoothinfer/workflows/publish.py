"""``smoothinfer publish``: a trained model and its measured figures as one checkpoint."""

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from smoothinfer.cards import read_card
from smoothinfer.checkpoints import (
    find_checkpoint,
    load_checkpoint,
    read_checked,
    save_with_card,
)
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.evaluation.rows import Rows, summarise
from smoothinfer.evaluation.runner import MODELS
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.noise.noisy_model import NOISE_PARTS, NoisyModel
from smoothinfer.reporting.members import read_json_member, read_member
from smoothinfer.reporting.shapes import CARD, RESULTS, Maybe, check_shape
from smoothinfer.reporting.table_file import decode_table
from smoothinfer.runtime.files import write_bytes, write_json
from smoothinfer.runtime.signals import defer_signals
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.workflows.publish_certificates import FILE, certificates_of, joined

Figure = dict[str, Any]
_LARGEST = 2**30  # bytes of a table
_SUMMARY = {**RESULTS, "weights": Maybe(dict), "split": Maybe(str), "table": Maybe(str)}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", help="a run folder or a .safetensors checkpoint")
    parser.add_argument("--name", required=True, help="of the published model")
    parser.add_argument(
        "--results", nargs="+", default=[], help="folders that evaluate or certify wrote"
    )
    parser.add_argument("--out", default="checkpoints", help="folder of the checkpoint")
    parser.add_argument(
        "--compact",
        action="store_true",
        help="keep factors of coloured noise in half precision: two thirds of the size",
    )
    parser.add_argument("--hub", metavar="USER/NAME", help="also push it to the Hugging Face hub")


def run(options: Namespace) -> int:
    results = [Path(result) for result in options.results]
    if options.hub is not None:
        from smoothinfer.hub import check_hub_name

        check_hub_name(options.hub)
    path = publish(options.model, options.name, Path(options.out), results, options.compact)
    Terminal().print(str(path))
    if options.hub is not None:
        from smoothinfer.hub import push

        Terminal().print(push(path, options.hub))
    return 0


def publish(
    model: str | Path, name: str, out: Path, results: Sequence[Path] = (), compact: bool = False
) -> Path:
    """Copy a trained model to ``out/name.safetensors``, its figures in the card beside it.

    Args:
        model: a run folder or a checkpoint.
        name: of the published model.
        out: folder; also gets the table of epochs as ``name.csv`` and the history of every layer's
            noise as ``name-noise.json`` where there is one.
        results: folders that ``smoothinfer evaluate`` or ``certify`` wrote; every setting becomes
            a figure, beside those that the model has already.
        compact: keep the factors of coloured noise in half precision, in two thirds of the size;
            the card then names the weights (``"measured"``) that its figures belong to.

    Returns:
        The path of the checkpoint.

    Raises:
        InputError: the name is a path, there is no such model, its weights are not those of its
            card, or the results are damaged, belong to another model, or to images on which
            settings are chosen.
    """
    if Path(name).name != name or not name or name.startswith(".") or not name.isprintable():
        raise InputError(
            f"a model's name is no path, begins with no dot, and can be printed: {name!r}"
        )
    path = find_checkpoint(model)
    if path is None:
        raise InputError(f"{str(model)!r} is no run folder and no checkpoint")
    card = check_shape(read_card(path), CARD, str(path.with_suffix(".json")))
    weights = read_checked(path, card)
    before = (_renamed(figure, name) for figure in _known(card, name, out, "figures"))
    figures = {_setting(figure): figure for figure in before}
    proved = [folder for folder in results if (folder / FILE).exists()]
    for folder in (folder for folder in results if folder not in proved):
        for figure in _figures_of(folder, card, path):
            named = _renamed(figure, name)
            figures[_setting(named)] = named
    target = out / f"{name}.safetensors"
    content = card | {"figures": list(figures.values())}
    added = [certificates_of(folder, _hashes(card), name) for folder in proved]
    if certified := joined(_known(card, name, out, "certified"), added, name):
        content["certified"] = certified
    with defer_signals():  # between weights and card: one without the other cannot be loaded
        _write_model(target, weights, content, compact)
    _copy_first(target.with_suffix(".csv"), path.parent / "epochs.csv", path.with_suffix(".csv"))
    history = path.with_name(f"{path.stem}-noise.json")
    _copy_first(target.with_name(f"{name}-noise.json"), path.parent / "strengths.json", history)
    return target


def _write_model(target: Path, weights: bytes, card: dict[str, Any], compact: bool) -> None:
    tensors = load_tensors(weights)
    if compact and any(_is_factor(key, t) for key, t in tensors.items()):
        short = {key: t.half() if _is_factor(key, t) else t for key, t in tensors.items()}
        save_with_card(target, short, {"measured": card["sha256"]} | card)
    else:
        write_bytes(target, weights)
        write_json(target.with_suffix(".json"), card)


def _figures_of(folder: Path, card: dict[str, Any], path: Path) -> list[Figure]:
    """Return the figures in ``folder``, after checking that they are those of the model."""
    summary = read_json_member("summary.json", folder, _SUMMARY)
    weights = {str(digest) for digest in (summary.get("weights") or {}).values()}
    split = summary.get("split") or "test"
    if not weights:
        raise InputError(f"{folder} names no weights: give a folder that evaluate wrote")
    if not weights <= set(_hashes(card)):
        raise InputError(f"{folder} holds results of other weights than {path}")
    if split != "test":
        raise InputError(
            f"{folder} was measured on the {split} images, on which settings are chosen: "
            "publish results that evaluate measured on the test images"
        )
    figures: list[Figure] = summary["settings"]
    rows = _rows_of(folder, summary)
    if json.loads(json.dumps(summarise(rows))) != figures:
        raise InputError(
            f"the figures in {folder / 'summary.json'} are not those of the rows beside it: run "
            "evaluate again"
        )
    if weights == {card["sha256"]} and not _models_of(rows) <= _expected_models(path, figures):
        raise InputError(
            f"the rows in {folder} are of another model than {path}, or of another version of "
            "smoothinfer: run evaluate again"
        )
    return figures


def _rows_of(folder: Path, summary: dict[str, Any]) -> Rows:
    table = folder / "table.parquet"
    content = read_member(table, folder, _LARGEST)
    if hashlib.sha256(content).hexdigest() != summary.get("table"):
        raise InputError(f"{table} is not the table that {folder / 'summary.json'} describes")
    return decode_table(content, table)


def _models_of(rows: Rows) -> set[str]:
    """Return the digests of the models of ``rows``; ``""`` stands for one that is not named."""
    named = (rows.schema.metadata or {}).get(MODELS.encode())
    return set(json.loads(named)) if named else {""}


def _expected_models(path: Path, figures: Sequence[Figure]) -> set[str]:
    """Return the digests of the checkpoint at ``path`` under the noises of ``figures``."""
    model: NoisyModel = load_checkpoint(path)
    digests = set()
    for each in (figure["description"] for figure in figures):
        units = each.get("units", "pixel")
        noisy = with_input_noise(model, each.get("sigma"), units)
        fixed = each.get("attack_sigma")
        target = noisy if fixed is None else with_input_noise(model, fixed, units)
        digests.add(Fingerprint().of(noisy, target))
    return digests


def _copy_first(target: Path, *sources: Path) -> None:
    """Copy the first of ``sources`` that exists to ``target``, if it is not there already."""
    for source in sources:
        if source.exists():
            if source.resolve() == target.resolve():
                return
            if source.suffix == ".json":  # its checksum is compared
                write_json(target, read_json_member(source.name, source.parent, dict))
            else:
                write_bytes(target, read_member(source, source.parent, _LARGEST))
            return


def _known(card: dict[str, Any], name: str, out: Path, kind: str) -> list[Any]:
    """Return the ``kind`` of figures that the model has, in its card or where it was published."""
    known, published = card.get(kind) or [], out / f"{name}.json"
    before = read_card(published) if published.exists() else {}
    if set(_hashes(before)) & set(_hashes(card)):
        known = [*known, *(check_shape(before, CARD, str(published)).get(kind) or [])]
    return known


def _renamed(figure: Figure, name: str) -> Figure:
    return figure | {"description": figure["description"] | {"model": name}}


def _hashes(card: dict[str, Any]) -> list[str]:
    """Return the hashes of the weights that a card describes: as they are, and as measured."""
    return [str(card[key]) for key in ("sha256", "measured") if key in card]


def _is_factor(name: str, tensor: Tensor) -> bool:
    learned = name.startswith(NOISE_PARTS) and name.endswith(".factor")
    return learned and tensor.dtype == torch.float32


def _setting(figure: Figure) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in figure["description"].items()))
