"""Checkpoints: weights in safetensors, with a JSON card that rebuilds the model."""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn

from smoothinfer.cards import read_card, recipe_of
from smoothinfer.config.user_code import (
    import_object,
    reading_from,
    running_code,
    trusting_code,
)
from smoothinfer.errors import InputError
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.recipes import Recipe
from smoothinfer.runtime.files import read_content, write_bytes, write_json
from smoothinfer.runtime.hub_access import offline_unless_reachable
from smoothinfer.runtime.modes import switch_to_eval
from smoothinfer.runtime.provenance import made_by
from smoothinfer.shipped_files import bases, shipped

Built = TypeVar("Built", bound=NoisyModel)


def load(model: str | Path, which: str = "best", trust_code: bool = False) -> nn.Module:
    """Return a model in eval mode that takes pixels in [0, 1]; nothing is unpickled.

    Args:
        model: a run folder, a ``.safetensors`` checkpoint with its card beside it, a shipped
            name (see `list_models`), ``hf:user/name`` for one on the Hugging Face hub, or
            ``package.module:factory`` (called without arguments).
        which: ``"best"`` or ``"last"``, for a run folder.
        trust_code: let the card of a checkpoint name functions outside of the package's
            registries; they run when the model is built.

    Raises:
        InputError: nothing is found under that name, weights, hash and card do not agree, or the
            card names code.
    """
    path = find_checkpoint(model, which)
    if path is not None:
        return load_checkpoint(path, trust_code=trust_code)
    _refuse_halves(str(model))
    if ":" in str(model):
        return _from_factory(str(model))
    near = get_close_matches(str(model), list_models(), n=3)
    meant = f"; did you mean {' or '.join(near)}?" if near else ", see smoothinfer models"
    raise InputError(
        f"no model {str(model)!r}: give a run folder, a .safetensors file, package.module:factory, "
        f"or a shipped name{meant}"
    )


def _refuse_halves(model: str) -> None:
    """Refuse weights without a network, and the name of a network without weights."""
    if model.startswith("timm:"):
        lack = "the name of a network, which has no weights"
    elif Path(model).suffix in (".pth", ".pt", ".bin", ".ckpt") and Path(model).is_file():
        lack = "a file of weights, which does not say of which network"
    else:
        return
    raise InputError(
        f"{model} is {lack}: harden it first (smoothinfer harden NETWORK.pth --model ...), or give "
        "package.module:factory, a function of yours that builds the network and loads its weights"
    )


def find_checkpoint(model: str | Path, which: str = "best") -> Path | None:
    """Return the checkpoint file that ``model`` names, or ``None`` if it names none."""
    if str(model).startswith("hf:"):
        return from_hub(str(model).removeprefix("hf:"))
    path = Path(model)
    if path.is_dir():
        file = path / f"{which}.safetensors"
        if not file.exists():
            raise InputError(f"the run folder {path} has no {file.name} yet")
        return file
    if path.suffix == ".safetensors":
        return path
    named = str(model) in list_models()
    return shipped("checkpoints", f"{model}.safetensors") if named else None


def list_models() -> list[str]:
    """Return the names of the shipped models."""
    return [path.stem for base in bases("checkpoints") for path in checkpoints_in(base)]


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints in ``folder``, by name."""
    return sorted(folder.glob("*.safetensors"))


def from_hub(name: str, **how: Any) -> Path:
    """Fetch weights and card of ``user/name`` from the Hugging Face hub; return the weights' path.

    Raises:
        InputError: they cannot be fetched.
    """
    from huggingface_hub import hf_hub_download

    kinds = "json", "safetensors"
    with offline_unless_reachable() as online:
        try:
            files = [hf_hub_download(name, f"model.{kind}", **how) for kind in kinds]
        except Exception as error:  # its errors have no common base
            why = str(error) if online else "it is out of reach, its cache lacks the model"
            raise InputError(
                f"cannot fetch {name!r} from the Hugging Face hub, model.json and "
                f"model.safetensors as push_to_hub of smoothinfer leaves them: {why}"
            ) from error
    return Path(files[1])


def load_checkpoint(
    path: str | Path,
    kind: type[Built] = NoisyModel,  # type: ignore[assignment]
    trust_code: bool = False,
) -> Built:
    """Rebuild the model in ``path``, after checking its hash against its card.

    Args:
        path: ends in ``.safetensors``.
        kind: the class to build, a `NoisyModel`.
        trust_code: let the card name functions outside of the package's registries.

    Raises:
        InputError: the file is missing, is not the one of its card, does not fit its recipe, or
            the card names code.
    """
    path = Path(path)
    card = read_card(path)
    tensors = read_weights(path, card)
    recipe = recipe_of(card, path)
    fits = partial(_check_fit, tensors=tensors, path=path)
    trust = trusting_code() if trust_code else contextlib.nullcontext()
    with trust, reading_from(str(path.with_suffix(".json"))):
        model = _build(recipe, card, path, kind, fits)
    fits(model)
    model.load_state_dict(tensors)
    model.class_names = tuple(card["classes"])
    return model.eval()


def _build(
    recipe: Recipe,
    card: Mapping[str, Any],
    path: Path,
    kind: type[Built],
    fits: Callable[[nn.Module], object],
) -> Built:
    """Build the model of a card; whatever goes wrong is the card's fault."""
    file = path.with_suffix(".json")
    try:
        return recipe.build_model(tuple(card["shape"]), len(card["classes"]), kind, fits)
    except InputError as error:
        where = "" if str(file) in str(error) else f"{file}: "
        raise InputError(f"{where}{error}") from error
    except Exception as error:  # options can make a network fail in any way
        raise InputError(f"{file} describes no model: {type(error).__name__}: {error}") from error


def read_weights(path: Path, card: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint by name.

    Raises:
        InputError: the file is missing or malformed, or is not the one of its card.
    """
    try:
        return load_tensors(read_checked(path, card))
    except SafetensorError as error:
        raise InputError(f"{path} is no file of safetensors: {error}") from error


def read_checked(path: Path, card: Mapping[str, Any]) -> bytes:
    """Return the content of the checkpoint ``path``, after checking its hash against ``card``.

    Raises:
        InputError: the file is missing, or is not the one of its card.
    """
    if not path.is_file():
        raise InputError(f"no such checkpoint: {path}")
    content = read_content(path)
    digest = hashlib.sha256(content).hexdigest()
    if digest != card["sha256"]:
        raise InputError(
            f"{path} is not the file of its card: its SHA-256 is {digest}. Run the command that "
            "wrote it again, or restore both files"
        )
    return content


def _check_fit(model: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse tensors of other names or shapes than the model's."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            sizes = [
                tuple(each) if each else "none" for each in (expected.get(name), found.get(name))
            ]
            raise InputError(
                f"{path} does not fit its recipe: of {name!r} the recipe has {sizes[0]}, "
                f"the file {sizes[1]}"
            )


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    recipe: Recipe,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    **more: Any,
) -> None:
    """Write weights and card, each whole or not at all.

    Args:
        path: ends in ``.safetensors``; the card stands beside it with ``.json``.
        model: built by ``recipe``.
        shape: (C, H, W) of an image.
        classes: the class names.
        more: further keys of the card: data, results.
    """
    card = {
        "recipe": recipe.to_dict(),
        "shape": list(shape),
        "classes": list(classes),
        **made_by(),
        **more,
    }
    save_with_card(Path(path), model.state_dict(), card)


def save_with_card(path: Path, tensors: Mapping[str, Tensor], card: dict[str, Any]) -> None:
    """Write ``tensors``, and ``card`` with their hash."""
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    write_bytes(path, content)
    write_json(path.with_suffix(".json"), card | {"sha256": hashlib.sha256(content).hexdigest()})


def _from_factory(path: str) -> nn.Module:
    factory = import_object(path)
    if isinstance(factory, nn.Module) or not callable(factory):
        raise InputError(
            f"{path} is a {type(factory).__name__}, not a function: name one that takes no "
            "arguments and returns a torch.nn.Module"
        )
    with running_code(f"the factory {path}() fails"):
        model = factory()
    if not isinstance(model, nn.Module):
        raise InputError(f"{path}() must return a torch.nn.Module, not {type(model).__name__}")
    switch_to_eval(model)
    return model
