"""``smoothinfer audit``: thirteen checks of a model's robustness, told on one page."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from smoothinfer.cli.numbers import whole_number
from smoothinfer.cli.options import (
    add_ball,
    add_limit,
    add_model,
    add_seed,
    add_sigma,
    add_split,
    ball_of,
    images_of_split,
    load_model,
    training_images,
)
from smoothinfer.evaluation.audit.runner import audit
from smoothinfer.reporting.audit_page import print_audit, write_audit
from smoothinfer.runtime.provenance import made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.classifier import SmoothedClassifier


def add_arguments(parser: ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--quick", action="store_true", help="less work: minutes for ResNet-20")
    add_ball(parser)
    add_sigma(parser)
    parser.add_argument("--rule", help="voting rule; by default prediction")
    parser.add_argument(
        "--samples", type=whole_number, help="most passes of a vote; 64 if quick, else 512"
    )
    add_split(parser)
    add_limit(parser, usual="300 if quick, else 1,000")
    add_seed(parser)
    parser.add_argument("--out", required=True, help="folder of audit.html, audit.json and checks/")


def run(options: Namespace) -> int:
    """Run the command; return 1 if a check fired, else 0."""
    if options.limit is None:
        options.limit = 300 if options.quick else 1000
    data = images_of_split(options)
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
        out=Path(options.out) / "checks",
        progress=True,
    )
    settings = {**vars(options), "data hash": data.hash, **made_by()}
    write_audit(result, Path(options.out), options.model, settings)
    print_audit(Terminal(), result)
    return int(bool(result.fired))
