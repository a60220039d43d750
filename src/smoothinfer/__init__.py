"""smoothinfer: many noisy passes of an image classifier, put to the vote."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from smoothinfer.attacks import (
    ATTACKS,
    apgd,
    cw,
    ddn,
    epgd,
    fgsm,
    multitargeted,
    nattack,
    pgd,
    smoothadv,
    square,
    transfer,
)
from smoothinfer.attacks.losses import ATTACK_LOSSES
from smoothinfer.attacks.projected_gradient import GRADIENTS
from smoothinfer.data import DATASETS, ImageData, load_data
from smoothinfer.engine.passes import passes
from smoothinfer.engine.stopping import STOPS
from smoothinfer.engine.tally import Prediction
from smoothinfer.engine.voting import RULES, Rule, rank_rule
from smoothinfer.errors import InputError
from smoothinfer.networks import MODELS, LogitsOf, Normalize, resnet20, smallnet
from smoothinfer.noise import CNI, NOISES, PNI, Gaussian, Laplace, Noise, NoisyModel, Uniform
from smoothinfer.numerics.balls import BALLS, L2, Linf
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.smoothing.certification import Certificates, certify, predict_or_abstain
from smoothinfer.smoothing.classifier import SmoothedClassifier, frozen
from smoothinfer.types import ABSTAIN

if TYPE_CHECKING:  # names that are imported when first used; see _LAZY
    from smoothinfer.checkpoints import list_models, load, save_checkpoint
    from smoothinfer.evaluation.audit.runner import audit
    from smoothinfer.evaluation.evaluate import evaluate
    from smoothinfer.evaluation.examples import load_examples
    from smoothinfer.evaluation.rows import accuracy, summarise
    from smoothinfer.hub import HubModel
    from smoothinfer.recipes import Recipe, load_recipe
    from smoothinfer.reporting.figures import accuracy_against_samples
    from smoothinfer.reporting.report import write_report
    from smoothinfer.training.losses import LOSSES
    from smoothinfer.workflows.publish import publish
    from smoothinfer.workflows.train import train_run

__version__ = version("smoothinfer")

# Tables, plotting, training and the hub take seconds to import: each waits for its first use.
_LAZY = {
    "HubModel": "hub",
    "LOSSES": "training.losses",
    "Recipe": "recipes",
    "accuracy": "evaluation.rows",
    "accuracy_against_samples": "reporting.figures",
    "audit": "evaluation.audit.runner",
    "evaluate": "evaluation.evaluate",
    "list_models": "checkpoints",
    "load": "checkpoints",
    "load_examples": "evaluation.examples",
    "load_recipe": "recipes",
    "publish": "workflows.publish",
    "save_checkpoint": "checkpoints",
    "summarise": "evaluation.rows",
    "train_run": "workflows.train",
    "write_report": "reporting.report",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "ABSTAIN", "ATTACKS", "ATTACK_LOSSES", "BALLS", "CNI", "DATASETS", "GRADIENTS", "L2", "LOSSES",
    "MODELS", "NOISES", "PNI", "RULES", "STOPS", "Certificates", "Gaussian", "HubModel",
    "ImageData", "InputError", "Laplace", "Linf", "LogitsOf", "Noise", "NoisyModel", "Normalize",
    "Prediction", "Recipe", "Rule", "SmoothedClassifier", "Uniform", "accuracy",
    "accuracy_against_samples", "apgd", "audit", "certify", "cw", "ddn", "epgd", "evaluate", "fgsm",
    "frozen", "isolated_rng", "list_models", "load", "load_data", "load_examples", "load_recipe",
    "multitargeted", "nattack", "passes", "pgd", "predict_or_abstain", "publish", "rank_rule",
    "resnet20", "save_checkpoint", "smallnet", "smoothadv", "square", "summarise", "train_run",
    "transfer", "write_report",
]  # fmt: skip
