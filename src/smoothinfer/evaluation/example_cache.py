"""Adversarial examples used again: by other rules, sample counts, and targets never asked."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from smoothinfer.attacks import Attack, transfer
from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import spelt, spelt_out
from smoothinfer.evaluation.pass_counter import Cost
from smoothinfer.runtime.files import write_whole
from smoothinfer.types import Images


class Crafted:
    """A folder of crafted batches, each called after all that it depends on.

    Args:
        folder: made when the first batch is put there.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def key(self, name: str, at: int, attack: Any, *world: Any) -> str:
        """Return the key of a batch: the attack, and whatever else it may depend on."""
        said = repr((name, at, spelt(attack), [spelt_out(part) for part in world]))
        return hashlib.sha256(said.encode()).hexdigest()[:32]

    def has(self, key: str) -> bool:
        """Say whether the batch is there."""
        return self._path(key).exists()

    def get(self, key: str) -> tuple[Images, Cost]:
        """Return the batch and what it cost.

        Raises:
            InputError: the file is damaged; the message names it.
        """
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:
                moved, told = file.get_tensor("moved"), json.loads(file.metadata()["cost"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): delete it to redo it") from None
        if told.pop("sha256") != spelt_out(moved):
            raise InputError(f"{path} is damaged (its checksum differs): delete it to redo it")
        return moved, Cost(**told)

    def put(self, key: str, moved: Images, cost: Cost) -> None:
        """Keep a batch, whole or not at all."""
        kept = moved.detach().cpu().contiguous()
        told = vars(cost) | {"sha256": spelt_out(kept)}
        content = save({"moved": kept}, metadata={"cost": json.dumps(told)})
        write_whole(self._path(key), lambda file: file.write(content))

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def is_ours(attack: Any) -> TypeGuard[Attack]:
    """Say whether ``attack`` is one of this library, with or without options.

    >>> is_ours(partial(transfer, source=None)), is_ours(print), is_ours(None)
    (True, False, False)
    """
    while isinstance(attack, partial):
        attack = attack.func
    return str(getattr(attack, "__module__", "")).startswith("smoothinfer.attacks.")


def asked_by(attack: Any, target: nn.Module) -> nn.Module:
    """Return the module that ``attack`` asks: a transferred one its source, others ``target``.

    >>> import torch
    >>> source, target = torch.nn.Flatten(), torch.nn.Linear(2, 2)
    >>> asked_by(partial(transfer, source=source), target) is source
    True
    """
    options: dict[str, Any] = {}
    while isinstance(attack, partial):
        options, attack = attack.keywords | options, attack.func
    source = options.get("source") if attack is transfer else None
    return source if isinstance(source, nn.Module) else target
