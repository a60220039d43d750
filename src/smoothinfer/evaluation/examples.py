"""Adversarial examples as files: one file of tensors for each attack."""

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from smoothinfer.errors import InputError
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.evaluation.units import UNIT_IMAGES, Evaluation
from smoothinfer.runtime.files import check_plain, write_bytes

_LONGEST = 160  # letters of an attack in the name of a file
_PLAIN = re.compile(r"[a-z0-9][a-z0-9_.=-]*")  # the same where capitals do not count
_DIGEST = re.compile(r"-[0-9a-f]{12}$")
_REMEDY = "delete it, and smoothinfer attack makes it again"


class ExampleExport:
    """A folder with ``ATTACK.safetensors`` for each attack.

    A file holds ``images``, ``adversarial`` (N, C, H, W) in [0, 1], and ``labels`` (N,). The name
    of an attack that is no plain word ends with its digest, so that no two attacks share a file.

    Args:
        folder: made when the first file is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, attack: str) -> Path:
        """Return the file of ``attack``.

        >>> ExampleExport("x").path("fgsm").name, ExampleExport("x").path("pgd(steps=7)").name
        ('fgsm.safetensors', 'pgd_steps=7-1533db6f71b4.safetensors')
        """
        name = re.sub(r"[^A-Za-z0-9_.=-]+", "_", attack).strip("_.")[:_LONGEST]
        if name != attack or not _PLAIN.fullmatch(name) or _DIGEST.search(name):
            name = f"{name or 'attack'}-{hashlib.sha256(attack.encode()).hexdigest()[:12]}"
        return self.folder / f"{name}.safetensors"

    def write(self, work: Evaluation) -> None:
        """Join the batches of each attack of ``work``, making those that are not cached."""
        starts = range(0, len(work.images), UNIT_IMAGES)
        for attack in work.attacks:
            if attack == CLEAN:
                continue
            keys = [work.keys.of_examples(attack, at) for at in starts]
            made_of = hashlib.sha256("".join(keys).encode()).hexdigest()
            if _made_of(self.path(attack)) == made_of:
                continue
            adversarial = torch.cat([work.examples(attack, at)[0].cpu() for at in starts])
            joined = {"images": work.images, "adversarial": adversarial, "labels": work.labels}
            _write(self.path(attack), joined, made_of)


def short_name(sigma: float) -> str:
    """Return ``sigma`` in few digits, unless these belong to another number.

    >>> short_name(0.06), short_name(0.1 + 0.2)
    ('0.06', '0.30000000000000004')
    """
    short = f"{sigma:g}"
    return short if float(short) == sigma else repr(sigma)


def load_examples(path: str | Path) -> dict[str, Tensor]:
    """Return ``images``, ``adversarial`` and ``labels`` of a file of adversarial examples.

    Raises:
        InputError: there is no such file, or it is damaged.
    """
    if not Path(path).is_file():
        raise InputError(f"no adversarial examples in {path}")
    return _read(Path(path))[0]


def _made_of(path: Path) -> str | None:
    """Return what the file at ``path`` was made of; ``None`` if there is no intact one."""
    try:
        return _read(path)[1]
    except (InputError, FileNotFoundError):
        return None


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    from safetensors import SafetensorError, safe_open

    check_plain(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, MemoryError) as error:
        raise InputError(f"{path} is damaged ({error}): {_REMEDY}") from None
    made_of = about.get("made of", "")
    if about.get("checksum") != _checksum(tensors, made_of):
        raise InputError(f"{path} is damaged (its checksum differs): {_REMEDY}")
    return tensors, made_of


def _write(path: Path, tensors: dict[str, Tensor], made_of: str) -> None:
    from safetensors.torch import save

    copies = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    about = {"made of": made_of, "checksum": _checksum(copies, made_of)}
    write_bytes(path, save(copies, metadata=about))


def _checksum(tensors: dict[str, Tensor], made_of: str) -> str:
    return Fingerprint().of(tensors, made_of)
