"""Models for others: on the Hugging Face hub, or as a checkpoint whose card tells its figures."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin

from smoothinfer.checkpoints import (
    find_checkpoint,
    from_hub,
    load_checkpoint,
    read_card,
    save_with_card,
)
from smoothinfer.errors import InputError
from smoothinfer.files import read_json, write_json, write_whole
from smoothinfer.noise.noisy_model import NoisyModel

_WEIGHTS = "model.safetensors"


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

    def _save_pretrained(self, save_directory: Path) -> None:
        save_with_card(save_directory / _WEIGHTS, self, self.card)

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
        model.card = read_card(path)
        return model


def publish(model: str | Path, name: str, out: Path, results: Sequence[Path] = ()) -> Path:
    """Copy a trained model to ``out/name.safetensors``, its figures in the card beside it.

    Args:
        model: a run folder or a checkpoint.
        name: what it is called from now on.
        out: folder; also gets the table of epochs as ``name.csv`` where there is one.
        results: folders that ``smoothinfer evaluate`` wrote; every setting becomes a figure.

    Returns:
        The path of the checkpoint.

    Raises:
        InputError: there is no such model, or the results are of another one.
    """
    path = find_checkpoint(model)
    if path is None:
        raise InputError(f"{str(model)!r} is no run folder and no checkpoint")
    card, figures = read_card(path), []
    for folder in results:
        weights = read_json(folder / "settings.json").get("sha256")
        if weights is None:
            raise InputError(f"{folder} does not say of which weights: give what evaluate wrote")
        if weights != card["sha256"]:
            raise InputError(f"{folder} holds results of other weights than {path}")
        figures += [
            figure | {"description": figure["description"] | {"model": name}}
            for figure in read_json(folder / "summary.json")["settings"]
        ]
    content, target = path.read_bytes(), out / f"{name}.safetensors"
    out.mkdir(parents=True, exist_ok=True)
    write_whole(target, lambda file: file.write(content))
    write_json(target.with_suffix(".json"), card | {"figures": figures})
    table = path.parent / "epochs.csv"
    if table.exists():
        shutil.copyfile(table, target.with_suffix(".csv"))
    return target
