"""Adversarial examples kept: a file of tensors for each attack, and a sheet of pictures."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.evaluation.units import CRAFTED, Evaluation
from smoothinfer.runtime.files import write_whole


class Examples:
    """A folder of adversarial examples: first batch by batch, in the end a file for each attack.

    ``ATTACK.safetensors`` holds ``images``, ``moved`` (N, C, H, W) in [0, 1], and ``labels`` (N,).

    Args:
        folder: made when the first batch is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.parts = self.folder / "parts"  # where an evaluation keeps what it crafts

    def path(self, attack: str) -> Path:
        """Return where the examples of ``attack`` are in the end."""
        return self.folder / f"{_plain(attack)}.safetensors"

    def write(self, work: Evaluation) -> None:
        """Join the batches of each attack of ``work``; craft those that are not there any more."""
        starts = range(0, len(work.images), CRAFTED)
        for attack in work.attacks:
            if attack == CLEAN:
                continue
            keys = [work.crafted_key(attack, at) for at in starts]
            made_of = hashlib.sha256("".join(keys).encode()).hexdigest()
            if _made_of(self.path(attack)) == made_of:
                continue
            moved = torch.cat([work.examples(attack, at)[0].cpu() for at in starts])
            joined = {"images": work.images, "moved": moved, "labels": work.labels}
            _write(self.path(attack), joined, made_of)
        shutil.rmtree(self.parts, ignore_errors=True)


def load_examples(path: str | Path) -> dict[str, Tensor]:
    """Return ``images``, ``moved`` and ``labels`` of a file of adversarial examples.

    Raises:
        InputError: there is no such file.
    """
    if not Path(path).is_file():
        raise InputError(f"no adversarial examples in {path}")
    return dict(load_file(path))


def _plain(attack: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.=-]+", "_", attack).strip("_")


def _made_of(path: Path) -> str | None:
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("made of")
    except (OSError, SafetensorError):
        return None


def _write(path: Path, tensors: dict[str, Tensor], made_of: str) -> None:
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    content = save(whole, metadata={"made of": made_of})
    write_whole(path, lambda file: file.write(content))
