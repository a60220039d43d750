"""`HubModel`: a noisy model on the Hugging Face hub."""

import re
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelHubMixin
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from smoothinfer.cards import read_card
from smoothinfer.checkpoints import (
    find_checkpoint,
    from_hub,
    load_checkpoint,
    save_with_card,
)
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.reporting.result_tables import figures_markdown

_WEIGHTS = "model.safetensors"
_HUB_OPTIONS = ("revision", "cache_dir", "token", "force_download", "local_files_only")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


def check_hub_name(name: str) -> None:
    """Raise `InputError` unless ``name`` can be that of a model on the hub.

    >>> check_hub_name("me/my model")
    Traceback (most recent call last):
    smoothinfer.errors.InputError: 'me/my model' is no name on the Hugging Face hub: write USER/NAME
    """
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"{name!r} is no name on the Hugging Face hub: write USER/NAME") from None


def push(path: str | Path, name: str) -> str:
    """Push the checkpoint ``path`` to the hub as ``name``; return its address.

    Raises:
        InputError: it cannot be pushed.
    """
    model = HubModel.from_checkpoint(path)
    try:
        return str(model.push_to_hub(name))
    except Exception as error:  # its errors have no common base
        raise InputError(
            f"{path} is written, but cannot be pushed to {name!r} on the Hugging Face hub: {error}"
        ) from error


class HubModel(
    NoisyModel,
    ModelHubMixin,
    library_name="smoothinfer",
    tags=["adversarial-robustness", "randomized-smoothing"],
    pipeline_tag="image-classification",
    paper_url="https://arxiv.org/abs/1911.07198",
):
    """A `NoisyModel` with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    Weights travel as safetensors with the card that rebuilds the network, so nothing is unpickled;
    hash and recipe are checked when the model is loaded.

    >>> model = HubModel.from_pretrained("runs/mine")  # doctest: +SKIP
    >>> model.push_to_hub("me/my-model")  # doctest: +SKIP
    """

    _volatile = (*NoisyModel._volatile, "card", "card_weights")  # type: ignore[assignment]

    card: dict[str, Any]
    card_weights: str  # digest of the weights that the card describes

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **how: Any) -> Self:
        """Load a model from a folder or from ``user/name`` on the hub; see `ModelHubMixin`.

        Args:
            pretrained_model_name_or_path: the folder or the name.
            how: options of `ModelHubMixin`, and ``trust_code`` of `load_checkpoint`.

        Raises:
            InputError: it is neither, or its card names code that is not trusted.
        """
        name = str(pretrained_model_name_or_path)
        if not Path(name).is_dir() and not _HUB_NAME.fullmatch(name):
            raise InputError(f"{name!r} is no folder and no user/name on the Hugging Face hub")
        try:
            model: Self = super().from_pretrained(name, **how)
        except (OSError, ValueError) as error:  # those of the hub are of these kinds
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{name!r} is no folder here, and cannot be fetched from the Hugging Face hub: "
                f"{error}"
            ) from error
        return model

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the page of the hub, with the measured figures of the card."""
        page = super().generate_model_card(*args, **kwargs)
        figures = figures_markdown(self._current_card() if hasattr(self, "card") else {})
        page.text = page.text.rstrip() + "\n\n" + figures + "\n"
        return page

    def _save_pretrained(self, save_directory: Path) -> None:
        if not hasattr(self, "card"):
            raise InputError(
                "only a model with a card can be rebuilt by others: train it by a recipe, then "
                "HubModel.from_checkpoint(path)"
            )
        save_with_card(save_directory / _WEIGHTS, self.state_dict(), self._current_card())

    def _current_card(self) -> dict[str, Any]:
        """Return the card; weights that were changed since have no figures yet."""
        if self._digest() == self.card_weights:
            return self.card
        lost = ("figures", "certified", "results", "measured", "command")
        kept = {key: value for key, value in self.card.items() if key not in lost}
        return kept | {"changed_from": self.card["sha256"]}

    def _digest(self) -> str:
        return Fingerprint().of(dict(self.state_dict()))

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **how: Any) -> Self:
        folder = Path(model_id)
        if folder.is_dir():
            weights = folder / _WEIGHTS
            path = weights if weights.exists() else find_checkpoint(folder)
            assert path is not None
        else:  # the rest is the mixin's config.json: the card says more
            path = from_hub(model_id, **{name: how[name] for name in _HUB_OPTIONS if name in how})
        return cls.from_checkpoint(path, how.get("trust_code", False))

    @classmethod
    def from_checkpoint(cls, path: str | Path, trust_code: bool = False) -> Self:
        """Return the model of a ``.safetensors`` file with its card; see `load_checkpoint`."""
        model = load_checkpoint(path, cls, trust_code)
        model.card = read_card(path)
        model.card_weights = model._digest()
        return model
