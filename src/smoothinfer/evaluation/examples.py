"""Adversarial examples kept: a file of tensors for each attack, and a sheet of pictures."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.evaluation.table import CLEAN
from smoothinfer.files import write_whole
from smoothinfer.types import Images, Labels


class Examples:
    """A folder of adversarial examples, first batch by batch, in the end a file for each attack.

    ``ATTACK.safetensors`` holds ``images``, ``moved`` (N, C, H, W) in [0, 1], and ``labels`` (N,).

    Args:
        folder: made when the first batch is kept.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def keep(self, attack: str, at: int, images: Images, moved: Images, labels: Labels) -> None:
        """Write one batch, whole or not at all."""
        if attack == CLEAN:
            return
        batch = {"images": images, "moved": moved, "labels": labels}
        path = self.folder / "parts" / f"{_plain(attack)}-{at:06d}.safetensors"
        _write(path, batch)

    def path(self, attack: str) -> Path:
        """Return where the examples of ``attack`` are in the end."""
        return self.folder / f"{_plain(attack)}.safetensors"

    def merge(self) -> list[Path]:
        """Join the batches of each attack; return the files."""
        parts: dict[str, list[Path]] = {}
        for path in sorted((self.folder / "parts").glob("*.safetensors")):
            parts.setdefault(path.stem.rpartition("-")[0], []).append(path)
        files = []
        for attack, paths in parts.items():
            loaded = [load_file(path) for path in paths]
            joined = {name: torch.cat([part[name] for part in loaded]) for name in loaded[0]}
            files.append(self.path(attack))
            _write(files[-1], joined)
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        return files


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


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    content = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    write_whole(path, lambda file: file.write(content))
