"""Many evaluations as one: units shared out, resumed, merged, and told the cost of beforehand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from smoothinfer.errors import InputError
from smoothinfer.evaluation.example_cache import asked_by
from smoothinfer.evaluation.runner import do_units
from smoothinfer.evaluation.pass_counter import Meter
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.units import CRAFTED, Evaluation
from smoothinfer.runtime.modes import device_of
from smoothinfer.runtime.processes import Processes
from smoothinfer.engine.passes import passes

_PROBED = 1  # images on which the cost of an attack is counted
_TIMED = 64  # images on which a pass is timed


@dataclass(frozen=True)
class Plan:
    """What a sweep has still to do, for this share of it.

    Attributes:
        units, done: units of work in all, and those already there.
        votes: passes of the network for votes, in images.
        crafting: passes for attacks, a backward one counted as two, estimated.
        seconds: estimated from a timed pass.
    """

    units: int
    done: int
    votes: int
    crafting: int
    seconds: float

    def __str__(self) -> str:
        minutes = round(self.seconds / 60)
        long = f"{minutes // 60} h {minutes % 60} min" if minutes else "less than a minute"
        return (
            f"{self.units - self.done} of {self.units} units to do: {self.votes:,} passes for "
            f"votes, about {self.crafting:,} for attacks; {long}"
        )


class Sweep:
    """The units of many evaluations, in one store.

    Args:
        works: prepared evaluations; no two with the same description.
        out: folder; receives ``rows/``.
        shard: (i, N): this is the i-th of N parts, from 0, of everything there is to do.

    Raises:
        InputError: two evaluations are the same, or there is no such part.
    """

    def __init__(self, works: Sequence[Evaluation], out: Path, shard: tuple[int, int] = (0, 1)):
        number, parts = shard
        if not 0 <= number < parts:
            last = f"0/{parts} to {parts - 1}/{parts}" if parts > 0 else "I/N with N at least 1"
            raise InputError(f"there is no part {number} of {parts}: give {last}")
        self.store = Store(out / "rows")
        self.works = {unit: work for work in works for unit in work.units}
        if len(self.works) < sum(len(work.units) for work in works):
            raise InputError("two settings of the sweep are the same: nothing tells them apart")
        self.mine = Processes().share(list(self.works)[number::parts])

    def plan(self) -> Plan:
        """Count what is to be done, and estimate how long it takes."""
        todo = [unit for unit in self.mine if not self.store.has(unit)]
        if not todo:
            return Plan(len(self.mine), len(self.mine), 0, 0, 0.0)
        votes = sum(self._size(unit) * self.works[unit].samples[-1] for unit in todo)
        crafting = round(sum(self._crafting(todo)))
        first = self.works[todo[0]]
        seconds = (votes + crafting) * _seconds_a_pass(first)
        return Plan(len(self.mine), len(self.mine) - len(todo), votes, crafting, seconds)

    def run(self, progress: bool = False) -> None:
        """Do what the store lacks; killed at any moment, the same sweep goes on."""
        do_units(self.works, self.mine, self.store, progress)

    @property
    def complete(self) -> bool:
        """Whether the store has every unit, of all parts."""
        held = Store(self.store.folder)
        return all(held.has(unit) for unit in self.works)

    def rows(self) -> Rows:
        """Return all rows, in the order of the settings.

        Raises:
            InputError: some are missing.
        """
        if not self.complete:
            raise InputError("some units are missing: run the other parts, and merge them")
        return _joined(self.store.read([unit]) for unit in self.works)

    def _size(self, unit: str) -> int:
        work = self.works[unit]
        return min(CRAFTED, len(work.images) - work.units[unit][1])

    def _crafting(self, todo: Sequence[str]) -> Iterable[float]:
        """Yield the passes each unit's attack is about to take."""
        per_image: dict[str, float] = {}
        made: set[str] = set()
        for unit in todo:
            work, (name, at) = self.works[unit], self.works[unit].units[unit]
            if work.attacks[name] is None:
                continue
            if work.crafted is not None:
                key = work.crafted_key(name, at)
                if key in made or work.crafted.has(key):  # once for several settings
                    continue
                made.add(key)
            if name not in per_image:  # what an attack takes hardly depends on sigma and radius
                per_image[name] = _probe(work, name)
            yield per_image[name] * self._size(unit)


def _probe(work: Evaluation, name: str) -> float:
    images, labels = work.images[:_PROBED], work.labels[:_PROBED]
    device = device_of(work.target, images)
    with Meter().on(asked_by(work.attacks[name], work.target)) as meter:
        work.craft(name, 0, images.to(device), labels.to(device))
    return (meter.forwards + 2 * meter.backwards) / len(images)


def _seconds_a_pass(work: Evaluation) -> float:
    images = work.images[:_TIMED]
    images = images.to(device_of(work.target, images))
    list(passes(work.classifier.model, images, 1, seed=0))
    begun = time.perf_counter()
    list(passes(work.classifier.model, images, 4, seed=0))
    return (time.perf_counter() - begun) / (4 * len(images))


def _joined(tables: Iterable[Rows]) -> Rows:
    # A setting may lack a column that another has, such as a target.
    return pa.concat_tables(list(tables), promote_options="default")
