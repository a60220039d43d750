"""``smoothinfer harden``: train a network that one already has to be robust, from its weights."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from smoothinfer.cli.options import DATA_HELP, add_limit, add_scale
from smoothinfer.config.components import Component
from smoothinfer.errors import InputError
from smoothinfer.networks import MODELS
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.state_dicts import is_state_dict
from smoothinfer.workflows import train

_RECIPE, _LR = "cifar10/cni-w.yaml", 0.05
_SHORT = {
    "timm": "smoothinfer.backbones:from_timm",
    "hf": "smoothinfer.backbones:from_transformers",
}
_MOVED = ("crop", "flip")


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "Train a network of one's own with adversarial examples and learned noise, from the "
        "weights in a state dict (.pth, .pt, .safetensors; read as data, no code in it is run). "
        "The run is that of smoothinfer train, with its folder, and resumes."
    )
    parser.add_argument("weights", metavar="NETWORK.pth", help="a state dict")
    parser.add_argument(
        "--model",
        required=True,
        help="the network: a name of ours such as resnet20, package.module:factory, timm:NAME or "
        "hf:NAME",
    )
    parser.add_argument("--data", required=True, help=DATA_HELP)
    parser.add_argument("--out", required=True, help="folder of the run; the same one resumes it")
    parser.add_argument(
        "--recipe",
        default=_RECIPE,
        help=f"of the training; {_RECIPE} by default, with lr {_LR}, see smoothinfer recipes",
    )
    add_scale(parser)
    add_limit(parser)
    parser.set_defaults(compile_cache=None)


def run(options: Namespace) -> int:
    if not Path(options.weights).expanduser().is_file():
        raise InputError(f"no such file: {options.weights}")
    if not is_state_dict(options.weights):
        raise InputError(
            f"{options.weights} has a card, or is no .pth, .pt or .safetensors: start from a "
            f"trained model of ours with smoothinfer train --set init_from={options.weights}"
        )
    model = model_component(options.model)
    words = [f"model={model.to_dict()}", f"init_from={options.weights}"]
    if options.recipe == _RECIPE:
        words.append(f"lr={_LR}")  # that of the recipe is for fresh weights
    if not any(word.startswith("normalise") for word in options.set):
        words += ["normalise.mean=[0.0]", "normalise.std=[1.0]"]
        Terminal().print(
            "images go to the network as they are, in [0, 1]; one that was trained on normalised "
            "images needs --set normalise.mean=[...] normalise.std=[...]"
        )
    if options.recipe == _RECIPE and not any(w.startswith(_MOVED) for w in options.set):
        Terminal().print(
            "training pictures are shifted by up to 4 pixels and mirrored, which suits those of "
            "CIFAR-10; --set crop=0 flip=false leaves them as they are"
        )
    status = train.run(Namespace(**vars(options) | {"set": [*words, *options.set]}))
    if ":" in model.name:
        Terminal().print(
            f"the network comes from {model.name}: other commands need --trust-code to load it",
            markup=False,
        )
    return status


def model_component(name: str) -> Component:
    """Return the component of a model by its short name.

    >>> str(model_component("timm:resnet18"))
    "smoothinfer.backbones:from_timm(name='resnet18')"
    """
    place, _, rest = name.partition(":")
    if place in _SHORT:
        if not rest:
            raise InputError(f"--model {name} names no network: write {place}:NAME")
        return Component(_SHORT[place], {"name": rest})
    found = Component.of(name)
    if ":" not in found.name and found.name not in MODELS:
        raise InputError(
            f"unknown model {found.name!r}: write timm:{found.name} for timm's network, "
            f"package.module:factory for one of yours; ours are {', '.join(MODELS)}"
        )
    return found
