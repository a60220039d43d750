"""smoothinfer: many noisy passes of an image classifier, put to the vote."""

import importlib
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # every name is imported when it is first used; see _LAZY
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
    from smoothinfer.attacks.given_examples import GivenExamples
    from smoothinfer.attacks.losses import ATTACK_LOSSES
    from smoothinfer.attacks.projected_gradient import GRADIENTS
    from smoothinfer.checkpoints import list_models, load, save_checkpoint
    from smoothinfer.data import DATASETS, ImageData, load_data
    from smoothinfer.defences import DEFENCES
    from smoothinfer.engine.passes import passes
    from smoothinfer.engine.pool import NetworkPool
    from smoothinfer.engine.prediction import Prediction
    from smoothinfer.engine.stops import STOPS
    from smoothinfer.engine.voting import RULES, Rule, rank_rule
    from smoothinfer.ensembles import Ensemble
    from smoothinfer.errors import InputError
    from smoothinfer.evaluation.audit.runner import audit
    from smoothinfer.evaluation.evaluate import evaluate
    from smoothinfer.evaluation.examples import load_examples
    from smoothinfer.evaluation.rows import accuracy, summarise
    from smoothinfer.exporting.exporter import export
    from smoothinfer.hub import HubModel
    from smoothinfer.networks import MODELS, LogitsOf, Normalize, resnet20, smallnet
    from smoothinfer.noise import (
        CNI,
        NOISES,
        PNI,
        Gaussian,
        GridGaussian,
        Laplace,
        Noise,
        NoisyModel,
        Uniform,
    )
    from smoothinfer.numerics.balls import BALLS, L2, Linf
    from smoothinfer.numerics.randomness import isolated_rng
    from smoothinfer.recipes import Recipe, load_recipe
    from smoothinfer.reporting.figures import accuracy_against_samples
    from smoothinfer.reporting.report import write_report
    from smoothinfer.reporting.table_file import load_results
    from smoothinfer.smoothing.abstention import Abstention, learn_abstention
    from smoothinfer.smoothing.certification import Certificates, certify, predict_or_abstain
    from smoothinfer.smoothing.classifier import SmoothedClassifier, frozen
    from smoothinfer.training.losses import LOSSES
    from smoothinfer.types import ABSTAIN
    from smoothinfer.workflows.publish import publish
    from smoothinfer.workflows.train import train_run

__version__ = version("smoothinfer")

# An import of the package is quick, and a Ctrl-C in a program's first second is handled by it.
_LAZY = {
    "ABSTAIN": "types",
    "Abstention": "smoothing.abstention",
    "ATTACKS": "attacks",
    "ATTACK_LOSSES": "attacks.losses",
    "BALLS": "numerics.balls",
    "CNI": "noise",
    "Certificates": "smoothing.certification",
    "DATASETS": "data",
    "DEFENCES": "defences",
    "Ensemble": "ensembles",
    "GRADIENTS": "attacks.projected_gradient",
    "Gaussian": "noise",
    "GivenExamples": "attacks.given_examples",
    "GridGaussian": "noise",
    "HubModel": "hub",
    "ImageData": "data",
    "InputError": "errors",
    "L2": "numerics.balls",
    "LOSSES": "training.losses",
    "Laplace": "noise",
    "Linf": "numerics.balls",
    "LogitsOf": "networks",
    "MODELS": "networks",
    "NOISES": "noise",
    "NetworkPool": "engine.pool",
    "Noise": "noise",
    "NoisyModel": "noise",
    "Normalize": "networks",
    "PNI": "noise",
    "Prediction": "engine.prediction",
    "RULES": "engine.voting",
    "Recipe": "recipes",
    "Rule": "engine.voting",
    "STOPS": "engine.stops",
    "SmoothedClassifier": "smoothing.classifier",
    "Uniform": "noise",
    "accuracy": "evaluation.rows",
    "accuracy_against_samples": "reporting.figures",
    "apgd": "attacks",
    "audit": "evaluation.audit.runner",
    "certify": "smoothing.certification",
    "cw": "attacks",
    "ddn": "attacks",
    "epgd": "attacks",
    "evaluate": "evaluation.evaluate",
    "fgsm": "attacks",
    "export": "exporting.exporter",
    "frozen": "smoothing.classifier",
    "isolated_rng": "numerics.randomness",
    "learn_abstention": "smoothing.abstention",
    "list_models": "checkpoints",
    "load": "checkpoints",
    "load_data": "data",
    "load_examples": "evaluation.examples",
    "load_results": "reporting.table_file",
    "load_recipe": "recipes",
    "multitargeted": "attacks",
    "nattack": "attacks",
    "passes": "engine.passes",
    "pgd": "attacks",
    "predict_or_abstain": "smoothing.certification",
    "publish": "workflows.publish",
    "rank_rule": "engine.voting",
    "resnet20": "networks",
    "save_checkpoint": "checkpoints",
    "smallnet": "networks",
    "smoothadv": "attacks",
    "square": "attacks",
    "summarise": "evaluation.rows",
    "train_run": "workflows.train",
    "transfer": "attacks",
    "write_report": "reporting.report",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    elif not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "ABSTAIN", "ATTACKS", "ATTACK_LOSSES", "BALLS", "CNI", "DATASETS", "DEFENCES", "GRADIENTS",
    "L2", "LOSSES", "MODELS", "NOISES", "PNI", "RULES", "STOPS", "Abstention", "Certificates",
    "Ensemble", "Gaussian", "GivenExamples", "GridGaussian", "HubModel", "ImageData",
    "InputError", "Laplace", "Linf", "LogitsOf", "NetworkPool", "Noise", "NoisyModel", "Normalize",
    "Prediction", "Recipe", "Rule", "SmoothedClassifier", "Uniform", "accuracy",
    "accuracy_against_samples", "apgd", "audit", "certify", "cw", "ddn", "epgd", "evaluate",
    "export", "fgsm", "frozen", "isolated_rng", "learn_abstention", "list_models", "load",
    "load_data", "load_examples", "load_recipe", "load_results", "multitargeted",
    "nattack", "passes", "pgd", "predict_or_abstain", "publish", "rank_rule", "resnet20",
    "save_checkpoint", "smallnet", "smoothadv", "square", "summarise", "train_run", "transfer",
    "write_report",
]  # fmt: skip
