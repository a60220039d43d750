"""Files of `torch.export`: written here, run in a fresh process that knows torch alone."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from smoothinfer.errors import InputError

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What a user of the file would write; numpy carries the arrays.
_RUN = """
import sys, numpy, torch
given = numpy.load(sys.argv[2])
program = torch.export.load(sys.argv[1]).module()
calls = []
for number in range(int(sys.argv[4])):
    arrays = [torch.from_numpy(given[f"{number}-{name}"]) for name in sys.argv[5:]]
    with torch.no_grad():
        found = program(*arrays)
    calls.append([found] if isinstance(found, torch.Tensor) else found)
numpy.savez(sys.argv[3], **{f"{n}-{m}": t.numpy() for n, c in enumerate(calls)
                            for m, t in enumerate(c)})
"""


def write_torch(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> nn.Module:
    """Export ``module`` to ``path``; the first axis of ``"images"`` may then have any length.

    Returns:
        The traced program as a module.

    Raises:
        InputError: `torch.export` cannot trace it.
    """
    try:
        with silenced():
            program = torch.export.export(
                module, tuple(inputs.values()), dynamic_shapes=dynamic(inputs)
            )
    except Exception as error:  # an exporter fails in many ways
        raise InputError(f"torch.export does not take the model: {first_line(error)}") from error
    torch.export.save(program, path)
    return program.module()


def dynamic(inputs: Mapping[str, Tensor]) -> tuple[dict[int, object] | None, ...]:
    """Return the dynamic shapes of ``inputs``: the number of images."""
    count = torch.export.Dim("count", min=1, max=2**20)
    return tuple({0: count} if name == "images" else None for name in inputs)


def run_torch(path: Path, calls: list[dict[str, Tensor]]) -> list[list[Tensor]]:
    """Run the file on each of ``calls``, in a process of its own; return the outputs.

    Raises:
        InputError: the file does not run.
    """
    names = list(calls[0])
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "given.npz"), Path(folder, "found.npz")
        arrays = {f"{n}-{m}": t.numpy() for n, call in enumerate(calls) for m, t in call.items()}
        np.savez(given, **arrays)  # type: ignore[arg-type]
        words = [sys.executable, "-c", _RUN, path, given, found, str(len(calls)), *names]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            raise InputError(f"{path} does not run in a fresh process: {last}")
        with np.load(found) as content:
            outputs = {name: torch.from_numpy(content[name]) for name in content.files}
    count = len(outputs) // len(calls)
    return [[outputs[f"{n}-{m}"] for m in range(count)] for n in range(len(calls))]


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Inside, exporters print no graphs and log nothing: what is wrong, their errors say."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            yield
    finally:
        logging.disable(before)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of the error that caused ``error``, or its kind.

    >>> try:
    ...     raise ValueError("step 1 of 3") from KeyError("the reason")
    ... except ValueError as error:
    ...     first_line(error)
    "'the reason'"
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = _COLOURS.sub("", str(error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
