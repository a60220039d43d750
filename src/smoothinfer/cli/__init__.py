"""The command line: ``smoothinfer COMMAND``, each command a file in `smoothinfer.workflows`.

This module imports nothing slow, so that a Ctrl-C is handled from the first moment on.
"""

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import Any, NoReturn

from smoothinfer.cli.computing import add_computing, computing_as
from smoothinfer.cli.repeated import Repeated
from smoothinfer.runtime.printable import one_line, printable
from smoothinfer.runtime.signals import RESUME, Stop, exit_on_signals, stop_on_signals

_DESCRIPTION = (
    "Make image classifiers more robust to adversarial examples by smoothed inference: many noisy "
    "passes, put to the vote. Begin with 'smoothinfer demo'."
)

# Each command is the module of its name in smoothinfer.workflows, with add_arguments() and run().
COMMANDS = {
    "demo": "Train, attack and smooth a small net on real digits.",
    "train": "Train a recipe on a data set; resumes.",
    "harden": "Train a network of your own, from its weights, to be robust; resumes.",
    "evaluate": "Measure a model, clean and attacked, in one pass and smoothed.",
    "attack": "Measure a model like evaluate, and keep the adversarial examples.",
    "standard": "Judge a model by the standard attack: one pass, ten in a row, and the vote.",
    "calibrate": "Choose sigma and the voting rule on the images that training held out.",
    "audit": "Check whether a model's robustness is real: thirteen checks, one page. Exit status 1 "
    "if one fires.",
    "certify": "Certify images: a radius within which no attack changes the vote.",
    "sweep": "Measure a grid of settings; resumed, shared by machines, merged.",
    "reproduce": "Repeat a table or figure of the paper, its numbers beside ours.",
    "report": "Turn results into one page, Markdown, LaTeX and figures.",
    "picture": "Draw the cost of passes, the votes under an attack, gradients or learned noise.",
    "publish": "Put a trained model and its figures into one checkpoint, or on the hub.",
    "leaderboard": "Judge a list of models by one protocol: a card each, one table, one page.",
    "export": "Write a vote as a file that ONNX runtimes or torch load; checked by running it.",
    "serve": "Answer pictures over HTTP, within a budget of time.",
    "models": "List the shipped models and their figures.",
    "recipes": "List the recipes that come with the package.",
    "attacks": "List the attacks and their options.",
    "data": "Show what a data set holds: splits, classes, counts, pictures.",
}
_LISTS = ("models", "recipes", "attacks", "data")
_NOT_RESUMED = ("report", "picture", "publish", "export", "serve", *_LISTS)
_INPUT, _OWN, _BROKEN_PIPE = 2, 3, 141  # exit statuses


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done; 1: an audit fired; 2: the input cannot be used; 3: an error of the program;
    130, 143: stopped by Ctrl-C or SIGTERM; 141: nobody reads the output any more.
    """
    words = list(sys.argv[1:]) if arguments is None else list(arguments)
    with exit_on_signals():
        parser, command = _parser(words)
        options = parser.parse_args(words)
        assert command is not None
        from smoothinfer.config.user_code import trusting_code
        from smoothinfer.runtime.processes import exit_process, tune_malloc
        from smoothinfer.runtime.provenance import record_command

        record_command(words)
        tune_malloc()
        warnings.formatwarning = _format_warning
        with trusting_code() if options.trust_code else contextlib.nullcontext():
            return exit_process(_run(command, options))


def _run(command: ModuleType, options: argparse.Namespace) -> int:
    from smoothinfer.cli.failures import report_failure, report_user_code
    from smoothinfer.errors import InputError

    try:
        with stop_on_signals(), computing_as(options):
            status: int = _run_with_output(command, options)
        if sys.stdout is not None:  # as under "smoothinfer models >&-"
            sys.stdout.flush()  # a closed pipe shows here, not when the interpreter ends
    except Stop as stop:
        starts_anew = options.command in _NOT_RESUMED
        after = "nothing is kept" if starts_anew else f"what was finished is kept, and {RESUME}"
        print(str(stop) or f"{stop.name}: stopped; {after}", file=sys.stderr)
        return stop.status
    except BrokenPipeError:
        return _close_output()
    except SystemExit as leaving:  # with which rich answers a closed pipe
        if not isinstance(leaving.__context__, BrokenPipeError):
            raise
        return _close_output()
    except (InputError, OSError) as error:  # OSError: a full disk; its message names the file
        print(f"error: {one_line(_told(error))}", file=sys.stderr)
        return _INPUT
    except Exception as error:  # not status 1, with which an audit says that a check fired
        if report_user_code(error):
            return _INPUT
        report_failure(error)
        return _OWN
    return status


def _told(error: Exception) -> str:
    """Return the text of an error; that of the operating system without its number."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _run_with_output(command: ModuleType, options: argparse.Namespace) -> int:
    """Run the command; --out is checked first, and removed if the command was refused."""
    from smoothinfer.errors import InputError
    from smoothinfer.runtime.output import check_output, remove_if_empty

    out = getattr(options, "out", None)
    if out is None:
        status: int = command.run(options)
        return status
    if getattr(command, "OUT_IS_FILE", False):
        out = os.path.dirname(out) or "."
    is_new = not os.path.lexists(out)
    check_output(out)
    try:
        status = command.run(options)
    except InputError:
        if is_new:
            remove_if_empty(out)
        raise
    return status


def _close_output() -> int:
    """Let the interpreter end in silence where nobody reads its output."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    return _BROKEN_PIPE


def _format_warning(message: Warning | str, *where: Any, **how: Any) -> str:
    """Write a warning as one line, without the place in the code that it comes from."""
    return f"warning: {one_line(str(message))}\n"


class _Parser(argparse.ArgumentParser):
    """A parser whose messages are harmless, whatever name they repeat.

    Every option of several values may be given several times.
    """

    def add_argument(self, *names: Any, **how: Any) -> argparse.Action:
        if how.get("nargs") == "+" and names[0].startswith("-"):
            how.setdefault("action", Repeated)
        return super().add_argument(*names, **how)

    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(printable(message, keep="\n"), file)


def _parser(words: Sequence[str]) -> tuple[argparse.ArgumentParser, ModuleType | None]:
    """Return the parser, and the module of the command in ``words``: no other is imported."""
    parser = _Parser(prog="smoothinfer", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=version("smoothinfer"))
    branches = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in words if not word.startswith("-")), None)
    module = None
    for name, description in COMMANDS.items():
        branch = branches.add_parser(
            name, help=description, description=description, allow_abbrev=False
        )
        if name == chosen:
            module = importlib.import_module(f"smoothinfer.workflows.{name}")
            module.add_arguments(branch)
            add_computing(branch, name)
            branch.add_argument(
                "--trust-code",
                action="store_true",
                help="run functions that the card of a checkpoint names (package.module:name); "
                "without it, cards name parts of smoothinfer alone",
            )
    return parser, module
