"""The base class of noise: a module that takes a clean tensor and returns a noisy one."""

from __future__ import annotations

import copy
from typing import Literal, Self

import torch
from torch import Tensor, nn

from smoothinfer.numerics.randomness import Draw, normal

Place = Literal["inputs", "weights", "activations"]


class Noise(nn.Module):
    """A distribution of noisy tensors around a clean one; subclasses write `forward`, or `affine`.

    Learned noises hold parameters that depend on the tensor they disturb: `fit` makes a copy
    sized for it. The template itself holds no parameters, so one template serves all layers.
    """

    place: Place = "inputs"

    def fit(self, shape: torch.Size, place: Place, layer: nn.Module | None = None) -> Noise:
        """Return a copy for tensors of ``shape``, put at ``place`` of ``layer``.

        Args:
            shape: of the weight, or of one batch at ``inputs`` and ``activations`` (N first).
            place: where the noise enters.
            layer: the layer that owns the tensor.
        """
        del layer
        return self._copy(place)

    def affine(self, clean: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """Return (scale, factor) if the noise is clean + scale * e1 + factor @ e2, else ``None``.

        e1 ~ N(0, I) in the shape of ``clean``, e2 ~ N(0, I_r), factor (entries, r). Weight noise
        of this form is drawn for all layers at once.
        """
        del clean
        return None

    def penalty(self, weight: Tensor | None) -> Tensor | None:
        """Return what a training adds to its loss, a scalar, or ``None``.

        Args:
            weight: of the layer that the noise belongs to, if it has one.
        """
        del weight
        return None

    def extra_repr(self) -> str:
        shown = (item for item in self.__dict__.items() if not item[0].startswith("_"))
        return ", ".join(f"{name}={value}" for name, value in shown if name != "training")

    def draw_like(
        self, draw: Draw, clean: Tensor, generator: torch.Generator | None, shared: bool = False
    ) -> Tensor:
        """Draw by ``draw`` in the shape of ``clean``, or of one image for all of them."""
        shape = (1, *clean.shape[1:]) if shared else clean.shape
        return draw(shape, clean, generator, images=not shared and self.place != "weights")

    def _copy(self, place: Place) -> Self:
        twin = copy.deepcopy(self)
        twin.place = place
        return twin

    def forward(
        self, clean: Tensor, generator: torch.Generator | None = None, shared: bool = False
    ) -> Tensor:
        """Return a noisy copy of ``clean``.

        Args:
            clean: a weight of any shape, or a batch with the image as the first axis.
            generator: where the random numbers come from; the global one by default.
            shared: draw one realisation for all images of the batch.

        Raises:
            NotImplementedError: `affine` gives no scale alone, and the subclass has no `forward`.
        """
        scale, factor = self.affine(clean) or (None, None)
        if scale is None or factor is not None:
            raise NotImplementedError(f"{type(self).__name__} needs a forward of its own")
        return clean + scale * self.draw_like(normal, clean, generator, shared)
