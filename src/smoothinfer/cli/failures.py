"""Errors of the program itself: a few lines for the user, and the traceback for a report."""

import os
import sys
import tempfile
import traceback

from smoothinfer.runtime.printable import one_line, printable

VARIABLE = "SMOOTHINFER_TRACEBACK"  # the environment variable that shows tracebacks


def report_failure(error: Exception) -> None:
    """Print what failed and where its traceback is, with the request to report it.

    The traceback is printed where ``SMOOTHINFER_TRACEBACK`` is 1, and else written to a file.
    """
    text = printable("".join(traceback.format_exception(error)), keep="\n")
    first = one_line(str(error))
    print(f"internal error: {type(error).__name__}: {first[:300]}", file=sys.stderr)
    print(
        "This is a fault of smoothinfer, not of your input: please report it with the traceback "
        f"{_place_of(text)}.",
        file=sys.stderr,
    )


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
