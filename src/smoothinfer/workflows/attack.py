"""``smoothinfer attack``: measure a model like ``evaluate``, and keep the adversarial examples."""

from argparse import Namespace

from smoothinfer.workflows.evaluate import add_arguments, evaluate_model

__all__ = ["add_arguments", "run"]


def run(options: Namespace) -> int:
    evaluate_model(options, export=True)
    return 0
