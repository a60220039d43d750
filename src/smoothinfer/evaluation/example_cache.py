"""Adversarial examples kept for reuse by other rules, sample counts and targets."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from smoothinfer.attacks import Attack, transfer
from smoothinfer.errors import InputError
from smoothinfer.evaluation.costs import Cost
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.runtime.checksums import append_checksum, check_bytes
from smoothinfer.runtime.files import check_plain, read_content, write_bytes
from smoothinfer.types import Images


class ExampleCache:
    """A folder of batches of adversarial examples, each named by everything that it depends on.

    Args:
        folder: made when the first batch is put there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def has(self, key: str) -> bool:
        """Say whether the batch is there."""
        return self._path(key).exists()

    def get(self, key: str) -> tuple[Images, Cost]:
        """Return the batch and its cost.

        Raises:
            InputError: the file is damaged; the message names it.
        """
        from safetensors import SafetensorError, safe_open

        path = self._path(key)
        check_plain(path)
        try:
            with safe_open(path, framework="pt") as file:
                adversarial = file.get_tensor("adversarial")
                saved = json.loads(file.metadata()["cost"])
                checksum = file.metadata()["checksum"]
        except (SafetensorError, KeyError, TypeError, ValueError, OSError, MemoryError) as error:
            raise InputError(f"{path} is damaged ({error}): delete it to redo it") from None
        if checksum != Fingerprint().of(key, saved, adversarial):
            raise InputError(f"{path} is damaged (its checksum differs): delete it to redo it")
        return adversarial, Cost(**saved)

    def put(self, key: str, adversarial: Images, cost: Cost) -> None:
        """Keep a batch, whole or not at all."""
        from safetensors.torch import save

        kept = adversarial.detach().cpu().contiguous()
        saved = asdict(cost)
        about = {"cost": json.dumps(saved), "checksum": Fingerprint().of(key, saved, kept)}
        write_bytes(self._path(key), save({"adversarial": kept}, metadata=about))

    def stages(self, key: str, cost: Cost) -> StageFile:
        """Return where an attack on the batch keeps its state, see `StageFile`."""
        return StageFile(self.folder / f"{key}.stages", key, cost)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


class StageFile:
    """The state of an attack on one batch after its last stage, with what it has cost so far.

    Args:
        path: of the file; one that is damaged is told and not used.
        key: of the batch.
        cost: of this process so far, to which `load` adds that of the processes before.
    """

    def __init__(self, path: Path, key: str, cost: Cost) -> None:
        self.path, self.key, self.cost = path, key, cost

    def load(self) -> dict[str, Tensor] | None:
        """Return the state, ``None`` if there is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        remedy = "the attack on its batch starts anew"
        try:
            content = check_bytes(read_content(self.path), self.path, remedy)
            key, _, tensors = content.partition(b"\n")
            if key != self.key.encode():
                raise InputError(f"{self.path} is of another batch: {remedy}")
            state = load(tensors)
            forwards, backwards = state.pop("cost").tolist()
        except FileNotFoundError:
            return None
        except (SafetensorError, KeyError, ValueError) as error:  # InputError is one
            warnings.warn(str(error), stacklevel=2)
            return None
        self.cost.forwards += forwards
        self.cost.backwards += backwards
        return state

    def save(self, state: dict[str, Tensor]) -> None:
        """Keep ``state``, whole or not at all."""
        from safetensors.torch import save

        cost = torch.tensor([self.cost.forwards, self.cost.backwards])
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        content = self.key.encode() + b"\n" + save(plain | {"cost": cost})
        write_bytes(self.path, append_checksum(content))

    def remove(self) -> None:
        """Remove the file: the attack has ended."""
        self.path.unlink(missing_ok=True)


def is_ours(attack: Any) -> TypeGuard[Attack]:
    """Say whether ``attack`` is one of this library, with or without options.

    >>> is_ours(partial(transfer, source=None)), is_ours(print), is_ours(None)
    (True, False, False)
    """
    while isinstance(attack, partial):
        attack = attack.func
    return str(getattr(attack, "__module__", "")).startswith("smoothinfer.attacks.")


def queried_by(attack: Any, target: nn.Module) -> nn.Module:
    """Return the module that ``attack`` queries: its source if it is a transfer, else ``target``.

    >>> import torch
    >>> source, target = torch.nn.Flatten(), torch.nn.Linear(2, 2)
    >>> queried_by(partial(transfer, source=source), target) is source
    True
    """
    options: dict[str, Any] = {}
    while isinstance(attack, partial):
        options, attack = attack.keywords | options, attack.func
    source = options.get("source") if attack is transfer else None
    return source if isinstance(source, nn.Module) else target
