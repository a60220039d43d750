"""Published random defences as plain modules, exact from their papers, to be judged by `standard`.

Each is a function of a network (pixels in [0, 1] -> logits) that returns a random module: two calls
differ, gradients flow to the images, and the global generators name its draws. A recipe names one
by its key ``defence``.
"""

from collections.abc import Callable

from torch import nn

from smoothinfer.defences.bayesian_networks import bayesian_weights
from smoothinfer.defences.correlated_features import weight_covariance
from smoothinfer.defences.mixed_networks import Mixture, mixture
from smoothinfer.defences.noisy_convolutions import self_ensemble
from smoothinfer.defences.perturbed_features import learned_perturbation
from smoothinfer.defences.pruned_features import activation_pruning
from smoothinfer.defences.random_filters import projection_filters
from smoothinfer.defences.random_norms import norm_aggregation
from smoothinfer.defences.resized_images import resize_and_pad
from smoothinfer.defences.sampled_weights import random_weights
from smoothinfer.defences.short_numbers import random_precision
from smoothinfer.defences.transformed_images import random_transforms

__all__ = ["DEFENCES", "Mixture"]

DEFENCES: dict[str, Callable[..., nn.Module]] = {
    "activation_pruning": activation_pruning,
    "bayesian_weights": bayesian_weights,
    "learned_perturbation": learned_perturbation,
    "mixture": mixture,
    "norm_aggregation": norm_aggregation,
    "projection_filters": projection_filters,
    "random_precision": random_precision,
    "random_transforms": random_transforms,
    "random_weights": random_weights,
    "resize_and_pad": resize_and_pad,
    "self_ensemble": self_ensemble,
    "weight_covariance": weight_covariance,
}
