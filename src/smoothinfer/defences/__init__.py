"""Published random defences as plain modules, exact from their papers, to be judged by `standard`.

Each is a function of a network (pixels in [0, 1] -> logits) that returns a random module: two calls
differ, gradients flow to the images, and the global generators name its draws.
"""

from collections.abc import Callable

from torch import nn

from smoothinfer.defences.mixed_networks import Mixture, mixture
from smoothinfer.defences.noisy_convolutions import self_ensemble
from smoothinfer.defences.pruned_features import activation_pruning
from smoothinfer.defences.resized_images import resize_and_pad
from smoothinfer.defences.short_numbers import random_precision
from smoothinfer.defences.transformed_images import random_transforms

__all__ = ["DEFENCES", "Mixture"]

DEFENCES: dict[str, Callable[..., nn.Module]] = {
    "activation_pruning": activation_pruning,
    "mixture": mixture,
    "random_precision": random_precision,
    "random_transforms": random_transforms,
    "resize_and_pad": resize_and_pad,
    "self_ensemble": self_ensemble,
}
