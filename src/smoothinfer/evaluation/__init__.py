"""Floor 6: from models to rows."""

from smoothinfer.evaluation.certified_rows import average_radius, certified_accuracy, certify_rows
from smoothinfer.evaluation.evaluate import evaluate, prepare
from smoothinfer.evaluation.examples import load_examples
from smoothinfer.evaluation.runner import rows_of
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.sweep import Sweep
from smoothinfer.evaluation.rows import accuracy, summarise
from smoothinfer.evaluation.units import Evaluation

__all__ = [
    "Evaluation",
    "Store",
    "Sweep",
    "accuracy",
    "average_radius",
    "certified_accuracy",
    "certify_rows",
    "evaluate",
    "load_examples",
    "prepare",
    "rows_of",
    "summarise",
]
