"""``smoothinfer export``: a vote and a pass as files for other runtimes."""

from argparse import ArgumentParser, Namespace
from typing import Any

from smoothinfer.cli.image_shape import add_shape, shape_and_classes
from smoothinfer.cli.numbers import whole_number
from smoothinfer.cli.options import MODEL_HELP, add_sigma, load_model, weights_hash
from smoothinfer.exporting.exporter import FORMATS, export
from smoothinfer.runtime.terminal import Terminal

OUT_IS_FILE = True


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Write a whole vote to FILE, whose noise comes from the generator of the runtime; beside "
        "it one pass that takes its noise as an input (FILE with .pass in its name), and a .json "
        "that tells inputs, outputs and the checks. Both files are run before they are put in "
        "place: the pass gives the model's logits under the noise of the same seed, the vote its "
        "mean probabilities, with fresh noise in every pass."
    )
    parser.add_argument("model", help=MODEL_HELP)
    parser.add_argument(
        "--format",
        choices=list(FORMATS),
        help="by default the ending of FILE tells: .onnx, or .pt2 for torch.export",
    )
    parser.add_argument("--samples", type=whole_number, default=64, help="passes of the vote; 64")
    add_sigma(parser)
    add_shape(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="ends in .onnx or .pt2")


def run(options: Namespace) -> int:
    model = load_model(options)
    shape, classes = shape_and_classes(options, model)
    about: dict[str, Any] = {"model": str(options.model), "sha256": weights_hash(options.model)}
    about |= {"names": list(classes), "sigma": options.sigma}
    how = {"samples": options.samples, "shape": shape, "format": options.format}
    found = export(model, options.out, **how, about=about)
    console = Terminal()
    vote = found["checks"]["vote"]
    console.print(
        f"{options.out}: a vote of {found['samples']} passes; its mean probabilities agree with "
        f"the model's within {vote['errors']:.1f} standard errors on {vote['images']} images, as "
        "chance makes them (above 6 nothing would be written)",
        markup=False,
    )
    if found["no pass"]:
        console.print(f"no file of one pass: {found['no pass']}", markup=False)
    else:
        one = found["checks"]["pass"]
        console.print(
            f"{found['files']['pass']}: one pass, with {found['noise']:,} numbers of noise as an "
            f"input; its logits agree within {one['difference']:.1g} of the largest",
            markup=False,
        )
    return 0
