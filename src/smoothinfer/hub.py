"""Models for others: on the Hugging Face hub, or as a checkpoint whose card tells its figures."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, ModelHubMixin
from safetensors.torch import load_file
from torch import Tensor

from smoothinfer.checkpoints import (
    find_checkpoint,
    from_hub,
    load_checkpoint,
    read_card,
    save_tensors,
    save_with_card,
)
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import spelt_out
from smoothinfer.runtime.files import read_json, write_json, write_whole
from smoothinfer.noise.noisy_model import NOISE_PARTS, NoisyModel
from smoothinfer.reporting.models import figures_told

_WEIGHTS = "model.safetensors"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


class HubModel(
    NoisyModel,
    ModelHubMixin,
    library_name="smoothinfer",
    tags=["adversarial-robustness", "randomized-smoothing"],
    pipeline_tag="image-classification",
    paper_url="https://arxiv.org/abs/1911.07198",
):
    """A `NoisyModel` with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Weights travel as safetensors with the card that rebuilds the network, so nobody unpickles
    anything; hash and recipe are checked when the model is loaded.

    >>> model = HubModel.from_pretrained("runs/mine")  # doctest: +SKIP
    >>> model.push_to_hub("me/my-model")  # doctest: +SKIP
    """

    card: dict[str, Any]
    held: str  # the weights that the card is about

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **how: Any) -> Self:
        """Load a model from a folder or from ``user/name`` on the hub; see `ModelHubMixin`.

        Raises:
            InputError: it is neither.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).is_dir() and not _HUB_NAME.fullmatch(name):
            raise InputError(f"{name!r} is no folder and no user/name on the Hugging Face hub")
        try:
            found: Self = super().from_pretrained(name, **how)
        except (OSError, ValueError) as error:  # those of the hub are of these kinds
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{name!r} is no folder here, and cannot be had from the Hugging Face hub: {error}"
            ) from error
        return found

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the page of the hub, with the measured figures of the card."""
        page = super().generate_model_card(*args, **kwargs)
        told = figures_told(self._told() if hasattr(self, "card") else {})
        page.text = page.text.rstrip() + "\n\n" + told + "\n"
        return page

    def _save_pretrained(self, save_directory: Path) -> None:
        if not hasattr(self, "card"):
            raise InputError(
                "only a model with a card can be rebuilt by others: train it by a recipe, then "
                "HubModel.from_checkpoint(path)"
            )
        save_with_card(save_directory / _WEIGHTS, self, self._told())

    def _told(self) -> dict[str, Any]:
        """Return the card; weights that were changed since have no figures yet."""
        if spelt_out(dict(self.state_dict())) == self.held:
            return self.card
        lost = ("figures", "results", "measured", "command")
        kept = {key: value for key, value in self.card.items() if key not in lost}
        return kept | {"trained_on_from": self.card["sha256"]}

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_config: Any,  # what the mixin wrote to config.json: the card says more
    ) -> Self:
        folder = Path(model_id)
        if folder.is_dir():
            held = folder / _WEIGHTS
            path = held if held.exists() else find_checkpoint(folder)
            assert path is not None
        else:
            how = {"revision": revision, "cache_dir": cache_dir, "token": token}
            how |= {"force_download": force_download, "local_files_only": local_files_only}
            path = from_hub(model_id, **how)
        return cls.from_checkpoint(path)

    @classmethod
    def from_checkpoint(cls, path: str | Path) -> Self:
        """Return the model of a ``.safetensors`` file with its card beside it."""
        model = load_checkpoint(path, cls)
        model.card, model.held = read_card(path), spelt_out(dict(model.state_dict()))
        return model


def publish(
    model: str | Path,
    name: str,
    out: Path,
    results: Sequence[Path] = (),
    compact: bool = False,
) -> Path:
    """Copy a trained model to ``out/name.safetensors``, its figures in the card beside it.

    Args:
        model: a run folder or a checkpoint.
        name: what it is called from now on.
        out: folder; also gets the table of epochs as ``name.csv`` and the course of every layer's
            noise as ``name-noise.json`` where there is one.
        results: folders that ``smoothinfer evaluate`` wrote; every setting becomes a figure,
            beside those that the model has already.
        compact: keep the factors of coloured noise in half precision, in two thirds of the size;
            the card then says of which weights (``"measured"``) its figures are.

    Returns:
        The path of the checkpoint.

    Raises:
        InputError: the name is a path, there is no such model, or the results are of another one,
            or of images on which settings are chosen.
    """
    if Path(name).name != name:
        raise InputError(f"a model's name is no path: {name!r}")
    path = find_checkpoint(model)
    if path is None:
        raise InputError(f"{str(model)!r} is no run folder and no checkpoint")
    card = read_card(path)
    figures = {_setting(figure): figure for figure in _known_figures(card, name, out)}
    for folder in results:
        settings = read_json(folder / "settings.json")
        weights, split = settings.get("sha256"), settings.get("split", "test")
        if weights is None:
            raise InputError(f"{folder} does not say of which weights: give what evaluate wrote")
        if weights not in _hashes(card):
            raise InputError(f"{folder} holds results of other weights than {path}")
        if split != "test":
            raise InputError(
                f"{folder} was measured on the {split} images, on which settings are chosen: "
                "publish what evaluate measured on the test images"
            )
        for figure in read_json(folder / "summary.json")["settings"]:
            named = figure | {"description": figure["description"] | {"model": name}}
            figures[_setting(named)] = named
    target = out / f"{name}.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    told = card | {"figures": list(figures.values())}
    tensors = load_file(path)
    if compact and any(_halved(key, t) for key, t in tensors.items()):
        short = {key: t.half() if _halved(key, t) else t for key, t in tensors.items()}
        save_tensors(target, short, {"measured": card["sha256"]} | told)
    else:
        content = path.read_bytes()
        write_whole(target, lambda file: file.write(content))
        write_json(target.with_suffix(".json"), told)
    _keep_beside(target.with_suffix(".csv"), path.parent / "epochs.csv", path.with_suffix(".csv"))
    course = path.with_name(f"{path.stem}-noise.json")
    _keep_beside(target.with_name(f"{name}-noise.json"), path.parent / "strengths.json", course)
    return target


def _keep_beside(target: Path, *sources: Path) -> None:
    """Copy the first of ``sources`` that is there to ``target``, if it is not there already."""
    for source in sources:
        if source.exists():
            if source.resolve() != target.resolve():
                shutil.copyfile(source, target)
            return


def _known_figures(card: dict[str, Any], name: str, out: Path) -> list[dict[str, Any]]:
    """Return the figures that the model has already, in its card or where it was published."""
    known, published = card.get("figures", []), out / f"{name}.json"
    there = read_json(published) if published.exists() else {}
    if set(_hashes(there)) & set(_hashes(card)):
        known = [*known, *there.get("figures", [])]
    return [f | {"description": f["description"] | {"model": name}} for f in known]


def _hashes(card: dict[str, Any]) -> list[str]:
    """Return the hashes of the weights that a card is about: as they are, and as measured."""
    return [card[key] for key in ("sha256", "measured") if key in card]


def _halved(name: str, tensor: Tensor) -> bool:
    learned = name.startswith(NOISE_PARTS) and name.endswith(".factor")
    return learned and tensor.dtype == torch.float32


def _setting(figure: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in figure["description"].items()))
