"""How a file was made: the command line, and the versions that its numbers may depend on."""

import platform
import shlex
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch

_RECORDED: dict[str, str] = {}  # the command line of this process, once there is one


def record_command(arguments: Sequence[str]) -> None:
    """Keep the arguments of ``smoothinfer`` for all files that this process writes."""
    _RECORDED["command"] = shlex.join(["smoothinfer", *arguments])


def computer() -> str:
    """Return torch's version and the processor: another one may round differently.

    >>> computer().startswith("torch")
    True
    """
    if torch.cuda.is_available():
        return f"torch {torch.__version__}, {torch.cuda.get_device_name()}"
    name = torch.cpu.get_capabilities().get("cpu_name", platform.machine())
    return f"torch {torch.__version__}, {name}"


def made_by() -> dict[str, Any]:
    """Return ``versions`` and, in a program run from the command line, its ``command``.

    >>> sorted(made_by()["versions"])
    ['machine', 'python', 'smoothinfer', 'torch']
    """
    versions = {
        "smoothinfer": version("smoothinfer"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
    if torch.cuda.is_available():
        versions["gpu"] = torch.cuda.get_device_name()
    return _RECORDED | {"versions": versions}
