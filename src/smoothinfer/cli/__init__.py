"""The command line: ``smoothinfer demo | train | evaluate | attack | calibrate | audit | ...``."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from smoothinfer.cli import making, measuring, showing
from smoothinfer.errors import InputError
from smoothinfer.runtime.signals import heed_sigterm
from smoothinfer.numerics.precision import keep_heap_warm
from smoothinfer.runtime.processes import leave
from smoothinfer.runtime.provenance import remember

_ABOUT = (
    "Make image classifiers more robust to adversarial examples by smoothed inference: many noisy "
    "passes, put to the vote. Begin with 'smoothinfer demo'."
)

COMMANDS = making.COMMANDS | measuring.COMMANDS | showing.COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0: done; 1: an audit fired; 2: what was given cannot be used; 3: something else went wrong.
    """
    said = list(sys.argv[1:]) if arguments is None else list(arguments)
    given = _parser().parse_args(said)
    remember(said)
    keep_heap_warm()
    heed_sigterm()
    sys.path.insert(0, "")  # package.module:factory is looked up here first
    return leave(_status(given))


def _status(given: Namespace) -> int:
    try:
        return COMMANDS[given.subcommand].run(given[given.subcommand])
    except (InputError, OSError) as error:  # OSError: a full disk; its message names the file
        # Not wrapped: paths in it are there to be copied.
        told = Console(stderr=True, highlight=False, soft_wrap=True)
        told.print(f"error: {error}", markup=False, style="red")
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; the same command goes on from here")
        return 130
    except Exception:  # not 1, by which an audit says that a check fired
        traceback.print_exc()
        return 3


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="smoothinfer", description=_ABOUT, version=version("smoothinfer"))
    branches = parser.add_subcommands()
    for name, command in COMMANDS.items():
        branch = ArgumentParser(description=command.about)
        command.fill(branch)
        branches.add_subcommand(name, branch, help=command.about)
    return parser
