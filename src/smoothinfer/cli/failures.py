"""Errors of the program itself and of code that a user named, told in a few lines."""

import os
import sys
import tempfile
import traceback
from pathlib import Path

from smoothinfer.config.user_code import is_named_code
from smoothinfer.runtime.printable import error_line, printable

VARIABLE = "SMOOTHINFER_TRACEBACK"  # the environment variable that shows tracebacks
_PACKAGE = str(Path(__file__).parents[1])


def report_user_code(error: Exception) -> bool:
    """Print in one line which code of the user failed; say whether it was the user's.

    It is, where it lies beside a module that the user named, and called none of ours.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename.startswith(_PACKAGE):
            return False
        if is_named_code(frame.filename):
            place = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
            print(
                f"error: your code failed in {place}: {type(error).__name__}: "
                f"{error_line(error)} ({VARIABLE}=1 shows its traceback)",
                file=sys.stderr,
            )
            if os.environ.get(VARIABLE) == "1":
                print(_text_of(error), file=sys.stderr, end="")
            return True
    return False


def report_failure(error: Exception) -> None:
    """Print what failed and where its traceback is, with the request to report it.

    The traceback is printed where ``SMOOTHINFER_TRACEBACK`` is 1, and else written to a file.
    """
    text = _text_of(error)
    print(f"internal error: {type(error).__name__}: {error_line(error)}", file=sys.stderr)
    print(
        "This is a fault of smoothinfer, not of your input: please report it with the traceback "
        f"{_place_of(text)}.",
        file=sys.stderr,
    )


def _text_of(error: Exception) -> str:
    return printable("".join(traceback.format_exception(error)), keep="\n")


def _place_of(text: str) -> str:
    """Show or keep a traceback; return where it is."""
    again = f"that the same command shows with {VARIABLE}=1"
    if os.environ.get(VARIABLE) == "1":
        print(text, file=sys.stderr, end="")
        return "above"
    try:
        descriptor, path = tempfile.mkstemp(prefix="smoothinfer-traceback-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError:
        return again
    return f"in {path}, or {again}"
