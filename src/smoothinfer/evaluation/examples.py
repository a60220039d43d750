"""Adversarial examples as files: one file of tensors for each attack."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.evaluation.units import UNIT_IMAGES, Evaluation
from smoothinfer.runtime.files import write_bytes


class ExampleExport:
    """A folder with ``ATTACK.safetensors`` for each attack.

    A file holds ``images``, ``adversarial`` (N, C, H, W) in [0, 1], and ``labels`` (N,).

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, attack: str) -> Path:
        """Return the file of ``attack``."""
        name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", attack).strip("_")
        return self.folder / f"{name}.safetensors"

    def write(self, work: Evaluation) -> None:
        """Join the batches of each attack of ``work``, making those that are not cached."""
        starts = range(0, len(work.images), UNIT_IMAGES)
        for attack in work.attacks:
            if attack == CLEAN:
                continue
            keys = [work.examples_key(attack, at) for at in starts]
            made_of = hashlib.sha256("".join(keys).encode()).hexdigest()
            if _made_of(self.path(attack)) == made_of:
                continue
            adversarial = torch.cat([work.examples(attack, at)[0].cpu() for at in starts])
            joined = {"images": work.images, "adversarial": adversarial, "labels": work.labels}
            _write(self.path(attack), joined, made_of)


def load_examples(path: str | Path) -> dict[str, Tensor]:
    """Return ``images``, ``adversarial`` and ``labels`` of a file of adversarial examples.

    Raises:
        InputError: there is no such file.
    """
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise InputError(f"no adversarial examples in {path}")
    return dict(load_file(path))


def _made_of(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("made of")
    except (OSError, SafetensorError):
        return None


def _write(path: Path, tensors: dict[str, Tensor], made_of: str) -> None:
    from safetensors.torch import save

    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    write_bytes(path, save(copies, metadata={"made of": made_of}))
