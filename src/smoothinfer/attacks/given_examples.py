"""Adversarial examples that another tool made, judged like those of an attack."""

from collections.abc import Mapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn

from smoothinfer.data.tensor_files import read_tensors
from smoothinfer.errors import InputError
from smoothinfer.numerics.balls import Ball
from smoothinfer.types import Images, Labels

_NAMES = ("adversarial", "x_adv", "adv_complete", "adv", "examples")
_LABELS = ("labels", "label", "y", "targets")
_CLEAN = ("images", "clean", "x_clean", "x_test", "x")
_SAME = 0.5 / 255  # pixels rounded to 8 bits are the same


class GivenExamples:
    """An attack that answers with stored examples, in the order of the evaluated images.

    Args:
        adversarial: (N, C, H, W) or (N, H, W, C), floats in [0, 1] or uint8.
        labels: (N,) that they were made for, compared with those of the evaluation.
        clean: the images that they were made from, compared too.
        source: what errors call them.

    Raises:
        InputError: they are no such images.

    >>> stored = GivenExamples(torch.full((2, 4, 4, 3), 255, dtype=torch.uint8))
    >>> stored.fit(torch.rand(2, 3, 4, 4), torch.tensor([0, 1]))
    >>> stored(None, torch.rand(1, 3, 4, 4), None, None, at=1).mean().item()
    1.0
    """

    needs_place = True  # is told the number of the first image of a batch

    def __init__(
        self,
        adversarial: Tensor,
        labels: Tensor | None = None,
        clean: Tensor | None = None,
        source: str = "the examples",
    ) -> None:
        self.source = source
        self.adversarial = self._pixels(adversarial, source)
        self.labels = None if labels is None else self._whole(labels, source)
        self.clean = None if clean is None else self._pixels(clean, f"the clean images of {source}")

    @classmethod
    def read(cls, file: str) -> Self:
        """Read adversarial examples: ``.npz``, ``.npy``, ``.safetensors``, or tensors in ``.pt``.

        A single array may have any name; of several the one called ``adversarial``, ``x_adv``,
        ``adv_complete`` (AutoAttack), ``adv`` or ``examples`` is taken, with ``labels`` and
        ``images`` beside it where they are.

        Raises:
            InputError: the file is missing, damaged, or holds no such images. No code in it is run.
        """
        tensors = read_tensors(file)
        if len(tensors) == 1:  # whatever it is called
            return cls(next(iter(tensors.values())), source=file)
        found = _first_of(tensors, _NAMES)
        if found is None:
            raise InputError(
                f"{file} holds {', '.join(sorted(tensors)) or 'nothing'}: call the adversarial "
                f"examples {' or '.join(_NAMES[:2])}"
            )
        labels, clean = (_first_of(tensors, names) for names in (_LABELS, _CLEAN))
        return cls(found, labels, clean, file)

    def __call__(
        self,
        model: nn.Module | None,
        images: Images,
        labels: Labels | None,
        ball: Ball | None,
        *,
        at: int = 0,
        generator: torch.Generator | None = None,
    ) -> Images:
        """Return the examples of the evaluated images from number ``at`` on."""
        return self.adversarial[at : at + len(images)].to(images)

    def fit(self, images: Images, labels: Labels) -> None:
        """Check that the examples are of these images, and put their axes in order.

        Raises:
            InputError: number, shape, labels or clean images differ.
        """
        count, shape = len(self.adversarial), tuple(images.shape[1:])
        if count != len(images):
            raise InputError(
                f"{self.source} holds {count} examples for {len(images)} images: if they are of "
                f"the first ones, evaluate these with --limit {count} --first"
            )
        self.adversarial = self._in_order(self.adversarial, shape)
        if self.labels is not None and not torch.equal(self.labels, labels.cpu().long()):
            raise InputError(f"{self.source} has other labels than the images: is the order right?")
        if self.clean is not None:
            clean = self._in_order(self.clean, shape)
            if clean.shape != images.shape or (clean - images.cpu()).abs().max() > _SAME:
                raise InputError(f"{self.source} was made from other images than these")

    def _in_order(self, pixels: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Return ``pixels`` as (N, C, H, W)."""
        channels, height, width = shape
        if tuple(pixels.shape[1:]) == shape:
            return pixels
        if tuple(pixels.shape[1:]) == (height, width, channels):
            return pixels.permute(0, 3, 1, 2).contiguous()
        if channels == 1 and tuple(pixels.shape[1:]) == (height, width):
            return pixels[:, None]
        raise InputError(
            f"{self.source} holds arrays of shape {tuple(pixels.shape)}, the images are {shape}"
        )

    @staticmethod
    def _whole(labels: Tensor, name: str) -> Labels:
        whole = labels.long()
        if not torch.equal(whole.to(labels.dtype), labels):
            raise InputError(f"the labels of {name} are no whole numbers")
        return whole.flatten()

    @staticmethod
    def _pixels(array: Tensor, name: str) -> Tensor:
        array = array.detach()
        if array.ndim not in (3, 4) or len(array) == 0:
            raise InputError(f"{name} must be images (N, C, H, W), not of {tuple(array.shape)}")
        if array.dtype == torch.uint8:
            return array.float() / 255
        if not array.is_floating_point():
            raise InputError(f"{name} must be floats in [0, 1] or uint8, not {array.dtype}")
        low, high = (float(end) for end in array.aminmax())
        if not (array.isfinite().all() and low >= -1e-4 and high <= 1 + 1e-4):
            raise InputError(
                f"{name} holds pixels from {low:.4g} to {high:.4g}, but they must lie in [0, 1]: "
                "undo the normalisation, or divide by 255"
            )
        return array.float().clamp(0, 1)


def _first_of(tensors: Mapping[str, Tensor], names: Sequence[str]) -> Tensor | None:
    return next((tensors[name] for name in names if name in tensors), None)
