"""Floor 6: from models to rows."""

from smoothinfer.evaluation.evaluate import evaluate
from smoothinfer.evaluation.table import Store, accuracy, summarise

__all__ = ["Store", "accuracy", "evaluate", "summarise"]
