"""Pages of the reference that are made from the code: keys, commands, names."""

import argparse
import dataclasses
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import smoothinfer as si
from smoothinfer.board_recipe import BoardRecipe, Entry
from smoothinfer.cli import COMMANDS
from smoothinfer.cli.computing import add_computing
from smoothinfer.recipes import NoisePlan, Recipe, Validation
from smoothinfer.reporting.tables import Table
from smoothinfer.sweep_recipe import SweepRecipe
from smoothinfer.training.options import TrainingOptions
from smoothinfer.workflows.attacks import ABOUT, explain


def write_all(folder: Path) -> None:
    """Write the pages; those that have not changed keep their time."""
    pages = {"recipes": recipes(), "commands": commands(), "attacks": attacks(), "api": api()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages.items():
        path = folder / f"{name}.{'rst' if name == 'api' else 'md'}"
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def recipes() -> str:
    """Return every key of the YAML files."""
    parts = ["# Keys of recipes\n"]
    parts.append(
        "A recipe is a YAML file; `extends: other.yaml` takes over another one's keys, `--set "
        "key=value` changes one on the command line. A *component* is a name with options: "
        "`pgd(steps=7)`, or `{name: pgd, steps: 7}`.\n"
    )
    for title, kinds in (
        ("Training", [Recipe, TrainingOptions]),
        ("Training: `noise`", [NoisePlan]),
        ("Training: `validation`", [Validation]),
        ("Sweep", [SweepRecipe]),
        ("Leaderboard", [BoardRecipe]),
        ("Leaderboard: `entries`", [Entry]),
    ):
        parts.append(f"## {title}\n\n{_keys(kinds)}")
    return "\n".join(parts)


def _keys(kinds: list[type]) -> str:
    said: dict[str, str] = {}
    for kind in kinds:
        said |= _attributes(kind)
    lines = []
    for each in dataclasses.fields(kinds[0]):  # type: ignore[arg-type]
        default = _default(each)
        lines.append([f"`{each.name}`", default, said.get(each.name, "")])
    table = Table(["key", "default", "meaning"], lines, left=3)
    return table.markdown().replace("\\`", "`")


def _default(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default}`" if field.default not in ("", None) else ""
    if field.default_factory is not dataclasses.MISSING:
        made = field.default_factory()
        return f"`{made}`" if isinstance(made, list | dict) and made else ""
    return "needed"


def _attributes(kind: type) -> dict[str, str]:
    """Return what the docstring of a dataclass says of each attribute."""
    text = inspect.getdoc(kind) or ""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.partition("Attributes:")[2].partition("\nRaises:")[0].splitlines():
        if match := re.match(r"    (\w[\w, ]*): (.*)", line):
            names = [name.strip() for name in match[1].split(",")]
            found |= dict.fromkeys(names, match[2])
        elif line.startswith("        "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def commands() -> str:
    """Return the help of every command."""
    parts = ["# Commands and their options\n"]
    for name, about in COMMANDS.items():
        parser = argparse.ArgumentParser(f"smoothinfer {name}", description=about)
        importlib.import_module(f"smoothinfer.workflows.{name}").add_arguments(parser)
        add_computing(parser, name)
        parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=96)
        parts.append(f"## {name}\n\n{about}\n\n```text\n{parser.format_help()}```\n")
    return "\n".join(parts)


def attacks() -> str:
    """Return when to take which attack, and each one's options."""
    table = Table(["attack", "when to take it"], [[*each] for each in ABOUT.items()], left=2)
    parts = ["# Attacks\n", table.markdown()]
    for name in si.ATTACKS:
        call = explain(name).partition("\n")[0]
        parts.append(f"## {name}\n\n```python\n{call}\n```\n")
    return "\n".join(parts)


def api() -> str:
    """Return the API reference: every public name, by kind."""
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Registries": []}
    for name in sorted(si.__all__, key=str.lower):
        value = getattr(si, name)
        kind = "Classes" if inspect.isclass(value) else "Functions"
        kind = kind if callable(value) and hasattr(value, "__name__") else "Registries"
        kinds[kind].append(name)
    parts = ["Python API\n==========\n"]
    for title in ("Functions", "Classes"):
        parts.append(f"{title}\n{'-' * len(title)}\n")
        for name in kinds[title]:
            directive = "autoclass" if title == "Classes" else "autofunction"
            members = "   :members:\n" if title == "Classes" and not _is_module(name) else ""
            parts.append(f".. {directive}:: smoothinfer.{name}\n{members}\n")
    parts.append("Registries\n----------\n")
    for name in kinds["Registries"]:
        value = getattr(si, name)
        entries = ", ".join(f"``{each}``" for each in value) if isinstance(value, dict) else value
        parts.append(f"``smoothinfer.{name}``: {entries}\n")
    return "\n".join(parts)


def _is_module(name: str) -> bool:
    """Say whether a class is a ``torch.nn.Module``, whose own methods would drown the page."""
    import torch

    return issubclass(getattr(si, name), torch.nn.Module)
