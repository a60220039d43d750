"""``smoothinfer attacks``: the attacks, each in one line, or one with its options."""

import inspect
from argparse import ArgumentParser, Namespace
from functools import partial

from smoothinfer.attacks import ARGUMENTS, ATTACKS
from smoothinfer.cli.listing import add_format, show
from smoothinfer.errors import choose
from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.terminal import Terminal

_OWN = {name.removesuffix("=") for name in ARGUMENTS}
# When to take which; the docstrings say what each does.
ABOUT = {
    "standard": "the worst of eight: to say how robust a model is, random or not",
    "fgsm": "one step: the quickest, and the weakest",
    "pgd": "steps along the gradient: the paper's, with steps=7",
    "epgd": "PGD, each gradient averaged over 8 draws of the noise",
    "smoothadv": "PGD on the mean probability of 8 draws",
    "kl_pgd": "PGD away from the model's own answer: needs no labels (TRADES)",
    "high_k": "PGD with 56 steps: the paper's longest in training",
    "multitargeted": "towards every other class, 8 draws: the strongest by gradients",
    "apgd": "step sizes by itself, draws=20 for random models (AutoAttack)",
    "apgd_dlr": "the same on the ratio of logits, where the cross-entropy is flat",
    "cw": "the nearest example in L2: how far is the boundary?",
    "ddn": "the same in fewer steps",
    "nattack": "by answers alone, no gradient: does the gradient mislead?",
    "one_draw": "on one frozen draw: as some random defences were evaluated",
    "square": "by answers alone, random squares: cheap beside nattack",
    "transfer": "made on another model: does robustness hold without gradients?",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.description = (
        "List the attacks, and when to take which. Options are written as in "
        "'pgd(steps=20, draws=8)', in Python too; 'none' stands for the clean images."
    )
    parser.add_argument("name", nargs="?", help="show this attack and its options")
    add_format(parser)


def run(options: Namespace) -> int:
    if options.name is not None:
        Terminal().print_lines(explain(options.name))
        return 0
    lines = [[name, ABOUT[name]] for name in ATTACKS]
    show(Table(["attack", "when to take it"], lines, left=2), options)
    return 0


def explain(name: str) -> str:
    """Return the options of an attack with their defaults, and what it does.

    Raises:
        InputError: there is none of this name.
    """
    attack = choose("attack", ATTACKS, name)
    written = inspect.signature(attack).parameters.values()
    given = [str(each.replace(annotation=each.empty)) for each in written if each.name not in _OWN]
    while isinstance(attack, partial):
        attack = attack.func
    return f"{name}({', '.join(given)})\n\n{ABOUT[name]}\n\n{inspect.getdoc(attack)}"
