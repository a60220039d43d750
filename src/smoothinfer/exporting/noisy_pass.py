"""One pass as a function of the images and of its noise: a vector of standard normal numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from smoothinfer.errors import InputError
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.numerics.randomness import stream
from smoothinfer.types import Images, Logits

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class _Coloured:
    """Where the numbers of one weight lie in the noise: e1 and e2 of scale * e1 + factor @ e2."""

    name: str
    white: slice
    mixed: slice


class NoisyPass(nn.Module):
    """The logits of images under a given noise, as `NoisyModel.member` draws it from a seed.

    The noise z is laid out as the streams of a pass draw it: first the input noise of one image,
    (C, H, W), then e1 of all weights and e2 of all weights.

    Args:
        noisy: with Gaussian input noise, PNI or CNI on weights, or both.
        shape: (C, H, W) of an image.

    Raises:
        InputError: its noise is not made of normal numbers alone, see `explicit_noise`.

    >>> from smoothinfer.noise import CNI, Gaussian
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> noisy = NoisyModel(net, inputs=Gaussian(0.1), weights=CNI(rank=1)).eval()
    >>> one = NoisyPass(noisy, (1, 2, 2))
    >>> images, z = torch.rand(3, 1, 2, 2), one.noise_of(seed=7, s=5)
    >>> torch.allclose(one(images, z), noisy.member(seed=7, s=5)(images), atol=1e-5)
    True
    """

    input_scale: Tensor

    def __init__(self, noisy: NoisyModel, shape: Shape) -> None:
        super().__init__()
        if reason := hidden_noise(noisy):
            raise InputError(reason)
        self.network, self.shape = noisy.module, shape
        at = self._add_inputs(noisy)
        self._add_weights(noisy, at)
        self.training = noisy.training

    def _add_inputs(self, noisy: NoisyModel) -> int:
        scale = torch.zeros(0)
        if noisy.inputs is not None:
            found = noisy.inputs.affine(torch.zeros(1, *self.shape))
            assert found is not None
            scale = found[0].detach().clone()
        self.register_buffer("input_scale", scale)
        return scale.numel()

    def _add_weights(self, noisy: NoisyModel, at: int) -> None:
        forms = {}
        for name, noise in noisy.noise_of_weights().items():
            weight = self.network.get_parameter(name)
            forms[name] = weight, noise.affine(weight)
        self.weights: list[_Coloured] = []
        mixed = at + sum(weight.numel() for weight, _ in forms.values())
        for number, (name, (weight, form)) in enumerate(forms.items()):
            assert form is not None
            scale, factor = form
            factor = torch.zeros(weight.numel(), 0) if factor is None else factor
            white, both = slice(at, at + weight.numel()), slice(mixed, mixed + factor.shape[1])
            self.register_buffer(f"scale_{number}", scale.detach().expand_as(weight).clone())
            self.register_buffer(f"factor_{number}", factor.detach().clone())
            self.weights.append(_Coloured(name, white, both))
            at, mixed = white.stop, both.stop
        self.length = mixed

    def forward(self, images: Images, noise: Tensor) -> Logits:
        """Return logits (N, K) of ``images`` (N, C, H, W) under ``noise`` (length,)."""
        count = self.input_scale.numel()
        if count:
            images = images + self.input_scale * noise[:count].view(1, *self.shape)
        drawn = {each.name: self._weight(number, noise) for number, each in enumerate(self.weights)}
        logits: Logits = functional_call(self.network, drawn, (images,))
        return logits

    def _weight(self, number: int, noise: Tensor) -> Tensor:
        place = self.weights[number]
        scale, factor = getattr(self, f"scale_{number}"), getattr(self, f"factor_{number}")
        clean = self.network.get_parameter(place.name)
        noisy = clean + scale * noise[place.white].view(clean.shape)
        if factor.shape[1] == 0:
            return noisy
        return noisy + (factor @ noise[place.mixed]).view(clean.shape)

    def noise_of(self, seed: int, s: int) -> Tensor:
        """Return the noise (length,) of pass ``s`` of the ensemble ``seed``; see `passes`."""
        count = self.input_scale.numel()
        inputs = torch.randn(count, generator=stream(seed, "inputs", s))
        weights = torch.randn(self.length - count, generator=stream(seed, "weights", s))
        return torch.cat([inputs, weights])


def hidden_noise(model: nn.Module) -> str:
    """Return why the noise of a pass cannot be an argument, or ``""``."""
    if not isinstance(model, NoisyModel):
        return "its noise is drawn inside a forward that is not smoothinfer's"
    if len(model.activation_noises):
        return "its noise is at activations, where it depends on what they hold"
    if model.inputs is not None and model.inputs.affine(torch.zeros(1, 1, 1, 1)) is None:
        return f"{type(model.inputs).__name__} noise at the inputs is not made of normal numbers"
    for name, noise in model.noise_of_weights().items():
        if noise.affine(model.module.get_parameter(name)) is None:
            return f"{type(noise).__name__} noise on {name} is not made of normal numbers"
    return ""


class Vote(nn.Module):
    """A whole vote with its noise drawn inside, by the generator of the runtime.

    Args:
        model: one pass, from images, and noise if it takes any, to logits.
        samples: passes.
        classes: K of the model.
        noise: length of the noise that a pass takes; 0 where it draws its own.
    """

    def __init__(self, model: nn.Module, samples: int, classes: int, noise: int) -> None:
        super().__init__()
        self.model, self.samples, self.classes, self.noise = model, samples, classes, noise
        self.training = model.training

    def forward(self, images: Images) -> tuple[Tensor, Tensor, Tensor]:
        """Return labels (N,), counts (N, K) of passes, and mean probabilities (N, K)."""
        from torch._higher_order_ops import while_loop

        def more(done: Tensor, counts: Tensor, total: Tensor) -> Tensor:
            return done < self.samples

        def run(done: Tensor, counts: Tensor, total: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            logits = self._pass(images)
            first = F.one_hot(logits.argmax(1), self.classes)
            return done + 1, counts + first, total + logits.float().softmax(1)

        table = images.shape[0], self.classes  # len() would fix the number of images
        none = torch.zeros(table, dtype=torch.int64)
        begin = torch.tensor(0), none, torch.zeros(table)
        _, counts, total = while_loop(more, run, begin)
        return counts.argmax(1), counts, total / self.samples

    def _pass(self, images: Images) -> Logits:
        given = [torch.randn(self.noise)] if self.noise else []
        logits: Logits = self.model(images, *given)
        return logits
