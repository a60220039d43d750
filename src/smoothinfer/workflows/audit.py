"""``smoothinfer audit``: thirteen checks of a model's robustness, told on one page."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from rich.console import Console

from smoothinfer.cli.options import (
    add_ball,
    add_model,
    add_seed,
    add_sigma,
    ball_of,
    load_model,
    training_images,
)
from smoothinfer.data import load_data
from smoothinfer.evaluation.audit.runner import audit
from smoothinfer.reporting.audit_page import print_audit, write_audit
from smoothinfer.runtime.provenance import made_by
from smoothinfer.smoothing.classifier import SmoothedClassifier


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--quick", action="store_true", help="less work: minutes for ResNet-20")
    add_ball(parser)
    add_sigma(parser)
    parser.add_argument("--rule", help="voting rule; by default prediction")
    parser.add_argument("--samples", type=int, help="most passes of a vote; 64 if quick, else 512")
    parser.add_argument(
        "--limit", type=int, help="number of images, the first ones; 300 if quick, else 1,000"
    )
    add_seed(parser)
    parser.add_argument("--out", required=True, help="folder of audit.html and audit.json")


def run(options: Namespace) -> int:
    """Run the command; return 1 if a check fired, else 0."""
    limit = (300 if options.quick else 1000) if options.limit is None else options.limit
    data = load_data(options.data, "test", limit)
    model = load_model(options)
    if options.samples is not None:
        model = SmoothedClassifier(model, options.samples, options.rule or "prediction")
    result = audit(
        model,
        data,
        ball=ball_of(options),
        quick=options.quick,
        seed=options.seed,
        seen=training_images(options),
        rule=options.rule,
        progress=True,
    )
    settings = {**vars(options), "data hash": data.hash, **made_by()}
    write_audit(result, Path(options.out), options.model, settings)
    print_audit(Console(), result)
    return int(bool(result.fired))
