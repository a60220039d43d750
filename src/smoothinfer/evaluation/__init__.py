"""Floor 6: from models to rows."""

from smoothinfer.evaluation.evaluate import evaluate
from smoothinfer.evaluation.examples import load_examples
from smoothinfer.evaluation.table import Store, accuracy, summarise

__all__ = ["Store", "accuracy", "evaluate", "load_examples", "summarise"]
