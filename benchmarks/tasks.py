"""The tasks of a campaign: trainings whose length fits the time, and commands."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.config.typed import from_dict
from smoothinfer.config.yaml_files import read_yaml
from smoothinfer.errors import InputError
from smoothinfer.runtime.files import read_json

_MARGIN = 0.97  # of the time that is left, for epochs
_PATIENCE = 20.0  # seconds between the wish to stop and the end
_SMOKE = ("--scale", "smoke")


@dataclass(frozen=True)
class Task:
    """One task: a training, or a command.

    Attributes:
        name: of the task, and of the folder of a training.
        train: a recipe.
        set: settings of the recipe, as ``--set`` takes them.
        epochs: the most of a training.
        fewest: epochs below which it is not begun.
        command: words after ``python -m``; ``{out}``, ``{data}`` and ``{NAME}`` (the folder of
            the task of that name) are filled in.
        smoke: more words of the command where the plan is rehearsed.
        minutes: the most that it may take; 0 for all that is left.
        data: by default that of the campaign.
        keep: patterns of files under its folder that must come back.
    """

    name: str
    train: str = ""
    set: list[str] = field(default_factory=list)
    epochs: int = 0
    fewest: int = 1
    command: str = ""
    smoke: str = ""
    minutes: float = 0.0
    data: str = ""
    keep: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if bool(self.train) == bool(self.command):
            raise InputError(f"task {self.name!r} needs either train or command")
        if self.train and self.epochs < self.fewest:
            raise InputError(f"task {self.name!r}: epochs must be at least {self.fewest}")


@dataclass(frozen=True)
class Plan:
    """Tasks in order of importance."""

    tasks: list[Task]


def read_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        InputError: a key is unknown, or two tasks have one name.
    """
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("tasks"), list):
        raise InputError(f"{path} must hold a list under the key tasks")
    plan = Plan([from_dict(Task, task, f"a task of {path}") for task in content["tasks"]])
    names = [task.name for task in plan.tasks]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"{path} has several tasks called {', '.join(sorted(twice))}")
    return plan


@dataclass(frozen=True)
class Outcome:
    """How a task ended: ``done``, ``stopped`` (its time was over), ``failed`` or ``skipped``."""

    state: str
    note: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class Place:
    """Where a campaign runs.

    Attributes:
        out: its folder.
        data: for tasks that name none.
        smoke: rehearse.
    """

    out: Path
    data: str
    smoke: bool = False

    def folder(self, name: str) -> Path:
        """Return the folder of a task."""
        return self.out / name

    def kept(self, plan: Plan) -> list[Path]:
        """Return all files that must come back: logs, and what tasks keep."""
        found = list(self.out.glob("*.log"))
        for task in plan.tasks:
            for pattern in task.keep:
                found += self.folder(task.name).glob(pattern)
        return found


def run_task(task: Task, place: Place, left: float) -> Outcome:
    """Run a task within ``left`` seconds."""
    limit = min(left, 60 * task.minutes) if task.minutes else left
    if limit <= 0:
        return Outcome("skipped", "no time is left")
    return _train(task, place, limit) if task.train else _command(task, place, limit)


def _command(task: Task, place: Place, limit: float) -> Outcome:
    names = {path.name: str(path) for path in place.out.iterdir() if path.is_dir()}
    names |= {"out": str(place.folder(task.name)), "data": task.data or place.data}
    words = task.command + (f" {task.smoke}" if place.smoke else "")
    try:
        filled = [word.format(**names) for word in shlex.split(words)]
    except KeyError as error:
        return Outcome("skipped", f"there is no folder of a task {error}")
    return _run(["-m", *filled], place.out / f"{task.name}.log", limit)


def _train(task: Task, place: Place, limit: float) -> Outcome:
    """Learn what an epoch costs, then train as many as fit; or go on with what was begun."""
    log, out = place.out / f"{task.name}.log", place.folder(task.name)
    if (out / "recipe.yaml").exists():
        begun = int(read_yaml(out / "recipe.yaml")["epochs"])
        return _run(_training(task, place, out, begun), log, limit)
    probe = place.folder(f"{task.name}.probe")
    found = _run(_training(task, place, probe, 2), log, limit)
    if found.state != "done":
        return found
    spent = found.details["seconds"]
    seconds = _seconds_per_epoch(probe)
    begins = max(0.0, spent - 2 * seconds)  # imports, data, the compiler
    fits = int(_MARGIN * (limit - spent - begins) / seconds)
    epochs, fewest = min(task.epochs, fits), task.fewest
    if place.smoke:
        epochs, fewest = min(epochs, 3), min(fewest, 3)
    details = {"seconds_per_epoch": seconds, "seconds_to_begin": begins, "epochs": epochs}
    if epochs < fewest:
        return Outcome("skipped", f"{fits} epochs fit, fewer than {fewest}", details)
    ended = _run(_training(task, place, out, epochs), log, limit - spent)
    return Outcome(ended.state, ended.note, details | ended.details)


def _training(task: Task, place: Place, out: Path, epochs: int) -> list[str]:
    settings = [*task.set, f"epochs={epochs}"]
    if place.smoke:
        settings = [s for s in settings if not s.startswith(("compile=", "batch_size="))]
    words = ["-m", "smoothinfer", "train", task.train, "--data", task.data or place.data]
    words += ["--out", str(out), "--set", *settings]
    cache = place.out / "compiler.bin"
    return [*words, *(_SMOKE if place.smoke else ("--compile-cache", str(cache)))]


def _seconds_per_epoch(run: Path) -> float:
    """Return the seconds of the second epoch of a run; its first one may wait for the compiler."""
    first, second = (row["seconds"] for row in read_json(run / "log.json")["epochs"])
    return float(max(second - first, 1e-3))


def _run(words: list[str], log: Path, limit: float) -> Outcome:
    """Run Python in a process of its own, its output in ``log``; stop it after ``limit`` s."""
    begun = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        print("$ python", shlex.join(words), file=output, flush=True)
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)
        try:
            status, state = process.wait(timeout=max(limit, 1.0)), "done"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it saves what it has
            try:
                status, state = process.wait(timeout=_PATIENCE), "stopped"
            except subprocess.TimeoutExpired:
                process.kill()
                status, state = process.wait(), "stopped"
    if state == "done" and status not in (0, 1):
        state = "failed"
    last = log.read_text(errors="replace").strip().splitlines()[-1]
    note = f"(status {status}: {last[:200]})" if state == "failed" else ""
    return Outcome(state, note, {"seconds": round(time.monotonic() - begun, 1)})
