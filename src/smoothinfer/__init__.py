"""smoothinfer: many noisy passes of an image classifier, put to the vote.

Floor by floor: mathematics, noise, smoothing, attacks, training, evaluation, recipes.
"""

from importlib.metadata import version

from smoothinfer.attacks import (
    ATTACKS,
    GRADIENTS,
    OBJECTIVES,
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
from smoothinfer.checkpoints import load, models, save_checkpoint
from smoothinfer.data import DATASETS, ImageData, load_data
from smoothinfer.errors import InputError
from smoothinfer.evaluation import accuracy, evaluate, load_examples, summarise
from smoothinfer.evaluation.audit import audit
from smoothinfer.hub import HubModel, publish
from smoothinfer.networks import MODELS, LogitsOf, Normalize, resnet20, smallnet
from smoothinfer.noise import CNI, NOISES, PNI, Gaussian, Laplace, Noise, NoisyModel, Uniform
from smoothinfer.numerics.balls import BALLS, L2, Linf
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.recipes import Recipe, load_recipe
from smoothinfer.reporting.figures import accuracy_against_samples
from smoothinfer.reporting.report import write_report
from smoothinfer.workflows.train import train_run
from smoothinfer.smoothing import (
    RULES,
    STOPS,
    Certificates,
    Prediction,
    Rule,
    SmoothedClassifier,
    certify,
    frozen,
    passes,
    predict_or_abstain,
    rank_rule,
)
from smoothinfer.training.losses import LOSSES
from smoothinfer.types import ABSTAIN

__version__ = version("smoothinfer")

__all__ = [
    "ABSTAIN",
    "ATTACKS",
    "BALLS",
    "CNI",
    "DATASETS",
    "GRADIENTS",
    "L2",
    "LOSSES",
    "MODELS",
    "NOISES",
    "OBJECTIVES",
    "PNI",
    "RULES",
    "STOPS",
    "Certificates",
    "Gaussian",
    "HubModel",
    "ImageData",
    "InputError",
    "Laplace",
    "Linf",
    "LogitsOf",
    "Noise",
    "NoisyModel",
    "Normalize",
    "Prediction",
    "Recipe",
    "Rule",
    "SmoothedClassifier",
    "Uniform",
    "accuracy",
    "accuracy_against_samples",
    "apgd",
    "audit",
    "certify",
    "cw",
    "ddn",
    "epgd",
    "evaluate",
    "fgsm",
    "frozen",
    "isolated_rng",
    "load",
    "load_data",
    "load_examples",
    "load_recipe",
    "models",
    "multitargeted",
    "nattack",
    "passes",
    "pgd",
    "predict_or_abstain",
    "publish",
    "rank_rule",
    "resnet20",
    "save_checkpoint",
    "smallnet",
    "smoothadv",
    "square",
    "summarise",
    "train_run",
    "transfer",
    "write_report",
]
