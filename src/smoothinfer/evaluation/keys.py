"""The keys of an evaluation: digests of everything that its numbers depend on, by what it is."""

from __future__ import annotations

import functools
import hashlib
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smoothinfer.evaluation.example_cache import queried_by
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.numerics.precision import resolve_precision
from smoothinfer.runtime.modes import device_of

if TYPE_CHECKING:
    from smoothinfer.evaluation.units import Evaluation

Key = dict[str, str]
Code = tuple[Callable[..., Any], ...]


class Keys:
    """Keys of the rows and of the adversarial examples of one evaluation.

    What cannot be read is never the same again: its keys hold a number of their own.

    Args:
        work: the evaluation, which must not change any more.
        batch: images of a unit.
        code_of_examples, code_of_rows: what makes them, beside the attack and the model.
    """

    def __init__(
        self, work: Evaluation, batch: int, code_of_examples: Code, code_of_rows: Code
    ) -> None:
        self._work, self._size = work, batch
        self._code_of_examples, self._code_of_rows = code_of_examples, code_of_rows
        self._tensors: dict[int, tuple[Tensor, str]] = {}
        self._images: dict[int, str] = {}

    def of_rows(self, attack: str, at: int) -> Key:
        """Return the parts of the key of the rows of ``attack`` from image ``at`` on."""
        return {**self._of_attacks[attack], "images": self._of_images(at)}

    def of_examples(self, attack: str, at: int) -> str:
        """Return the name of a batch of adversarial examples: a digest of all it depends on."""
        return Fingerprint().of(self._of_worlds[attack], at, self._of_images(at))

    @functools.cached_property
    def models(self) -> set[str]:
        """Digests of model and target by their contents."""
        return {key["model"] for key in self._of_attacks.values()}

    def _of_images(self, at: int) -> str:
        if at not in self._images:
            batch = slice(at, at + self._size)
            parts = self._work.images[batch], self._work.labels[batch]
            self._images[at] = Fingerprint().of(*parts)
        return self._images[at]

    @functools.cached_property
    def _of_attacks(self) -> dict[str, Key]:
        """For each attack the parts of the key that all its batches share."""
        work, smooth = self._work, self._work.classifier
        common = Fingerprint(tensors=self._tensors)
        how = (smooth.tile, smooth.per_image, smooth.seed, list(work.rules), work.samples)
        settings = common.of(work.seed, work.describe, how, work.stop, work.delta)
        model = common.of(smooth.model, work.target)
        rules, torch_state = common.of(work.rules), common.of_torch()
        common.of(*self._code_of_rows)
        keys = {}
        for name, attack in work.attacks.items():
            own = Fingerprint(common.code, self._tensors)
            place = () if attack is None else (work.ball, *self._code_of_examples)
            key = {"settings": f"{settings}{own.of(*place)}", "model": model, "rules": rules}
            key |= {"attack": own.of(attack), "precision": self._formats(attack is not None)}
            key |= {"hooks": torch_state}
            key |= {"package code": own.package_code(), "user code": own.user_code()}
            keys[name] = key | unreadable_part(common, own)
        return keys

    @functools.cached_property
    def _of_worlds(self) -> dict[str, str]:
        """For each attack the digest of everything that its examples depend on, but the images."""
        work, worlds = self._work, {}
        for name, attack in work.attacks.items():
            prints = Fingerprint(tensors=self._tensors)
            # An attack that never queries its target gives the same examples for all targets.
            queried = work.target if queried_by(attack, work.target) is work.target else None
            content = prints.of(name, attack, queried, work.ball, work.seed)
            key = {"content": content, "torch": prints.of_torch(), "precision": self._formats(True)}
            prints.of(*self._code_of_examples)
            worlds[name] = digest_of_key({**key, **unreadable_part(prints), **prints.code})
        return worlds

    def _formats(self, attacked: bool) -> str:
        device = device_of(self._work.target, self._work.images)
        votes = number_formats(self._work.classifier.precision, device)
        return f"{votes}; attacks {number_formats('auto', device)}" if attacked else votes


def number_formats(precision: str, device: torch.device) -> str:
    """Return the formats in which ``device`` multiplies now, where ``precision`` was asked for.

    The device, the number of threads and the version of torch are not among them: rows name them.

    >>> number_formats("fp32", torch.device("cpu"))
    'fp32, matmul fp32, conv fp32'
    """
    formats = [resolve_precision(precision, device)]
    backend = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    convolve = torch.backends.cudnn if device.type == "cuda" else torch.backends.mkldnn
    formats.append(f"matmul {_short_format(backend.matmul)}")
    formats.append(f"conv {_short_format(getattr(convolve, 'conv', convolve))}")
    if torch.get_default_dtype() != torch.float32:
        formats.append(f"default {torch.get_default_dtype()}")
    if torch.is_autocast_enabled(device.type):
        formats.append(f"autocast {torch.get_autocast_dtype(device.type)}")
    return ", ".join(formats)


def _short_format(backend: Any) -> str:
    """Return the format, such as tf32, in which a backend multiplies float32."""
    own = getattr(backend, "fp32_precision", None)  # of torch 2.9 and later
    if own is None:
        own = "tf32" if getattr(backend, "allow_tf32", False) else "none"
    return "fp32" if own in ("none", "ieee") else str(own)


def unreadable_part(*prints: Fingerprint) -> Key:
    """Return the part of a key that differs each time, if something could not be read."""
    names = sorted(set().union(*(each.unreadable for each in prints)))
    return {"unreadable": f"{', '.join(names)} #{secrets.token_hex(8)}"} if names else {}


def digest_of_key(key: Mapping[str, str]) -> str:
    """Return the digest that names units and examples with this key."""
    return hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:12]
