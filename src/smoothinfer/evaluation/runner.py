"""Runs the units of one or many evaluations: resumed, shared by processes, foretold in cost."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from smoothinfer.attacks.kept_stages import hearing_stages
from smoothinfer.engine.passes import passes
from smoothinfer.errors import InputError
from smoothinfer.evaluation.costs import Cost, watching
from smoothinfer.evaluation.example_cache import queried_by
from smoothinfer.evaluation.keys import Key
from smoothinfer.evaluation.reuse import check_shareable, reuse_lines
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.store import Store, have_one_file
from smoothinfer.evaluation.units import UNIT_IMAGES, Evaluation
from smoothinfer.runtime.modes import device_of
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.progress import Bar, progress_bar
from smoothinfer.runtime.signals import raise_if_stopped

MODELS = "models"  # key of the metadata of rows: the digests of models and targets
_PROBED = 1  # images on which the cost of an attack is counted
_TIMED = 64  # images on which a pass is timed
_LEFT = re.compile(r"(\d+)/(\d+) left")  # images that an attack has not broken yet


@dataclass(frozen=True)
class CostPlan:
    """The work that is left for this share of the units.

    Attributes:
        units, done: units in all, and those already stored.
        votes: passes of the network for votes, times images.
        attacks: passes for attacks, a backward one counted as two, estimated.
        seconds: estimated from a timed pass.
    """

    units: int
    done: int
    votes: int
    attacks: int
    seconds: float

    def __str__(self) -> str:
        minutes = round(self.seconds / 60)
        long = f"{minutes // 60} h {minutes % 60} min" if minutes else "less than a minute"
        return (
            f"{self.units - self.done} of {self.units} units to do: {self.votes:,} passes for "
            f"votes, about {self.attacks:,} for attacks; {long}"
        )


class Runner:
    """The units of evaluations, in one store.

    Args:
        works: prepared evaluations; no two with the same description.
        store: receives the rows.
        shard: (i, N): run the i-th of N parts, from 0, of all units.

    Raises:
        InputError: two evaluations are the same, there is no such part, several processes have no
            folder in common, or a model or attack that cannot be read is shared out.
    """

    def __init__(
        self, works: Sequence[Evaluation], store: Store, shard: tuple[int, int] = (0, 1)
    ) -> None:
        number, parts = shard
        if not 0 <= number < parts:
            last = f"0/{parts} to {parts - 1}/{parts}" if parts > 0 else "I/N with N at least 1"
            raise InputError(f"there is no part {number} of {parts}: give {last}")
        self.store, self.processes = store, Processes()
        if self.processes.count > 1 and store.folder is None:
            raise InputError("several processes share their rows through a folder: give out=")
        self.works = {unit: work for work in works for unit in work.units}
        if len(self.works) < sum(len(work.units) for work in works):
            raise InputError("two settings are the same: give each a description of its own")
        if have_one_file(self.works):
            raise InputError("two attacks have names that are spelt alike: call them differently")
        check_shareable(
            {unit: self._key(unit) for unit in self.works}, parts * self.processes.count
        )
        self.mine = self.processes.share(list(self.works)[number::parts])

    def plan(self) -> CostPlan:
        """Count the missing units, and estimate how long they take from one attacked image."""
        missing = self._missing()
        if not missing:
            return CostPlan(len(self.mine), len(self.mine), 0, 0, 0.0)
        votes = sum(self._images(unit) * self.works[unit].samples[-1] for unit in missing)
        attacks = round(sum(self._attack_passes(missing)))
        seconds = (votes + attacks) * _seconds_per_pass(self.works[missing[0]])
        return CostPlan(len(self.mine), len(self.mine) - len(missing), votes, attacks, seconds)

    def reuse(self) -> list[str]:
        """Say how many stored units are taken over, how many are computed anew, and why."""
        return reuse_lines(self.store, {unit: self._key(unit) for unit in self.mine})

    def _key(self, unit: str) -> Key:
        work = self.works[unit]
        return work.keys.of_rows(*work.units[unit])

    def run(self, progress: bool = False) -> None:
        """Run the missing units, and wait for the other processes; a killed run resumes here.

        Raises:
            InputError: a stored unit is damaged; nothing has been computed then.
        """
        self.store.check(self.works)
        missing = self._missing()
        done = sum(self.works[unit].samples[-1] for unit in set(self.mine) - set(missing))
        total = sum(self.works[unit].samples[-1] for unit in self.mine)
        shown = progress and self.processes.main
        unit = "passes of votes"
        with progress_bar("", total, shown=shown, completed=done, unit=unit) as bar:
            count = len(self.mine) - len(missing)
            for group in self._groups(missing):
                raise_if_stopped()
                count += len(group)
                shows = _Passes(bar, f"{count}/{len(self.mine)}", group[0][:28])
                with watching(shows), hearing_stages(shows.stage):
                    self._run_group(group, bar.advance)
                done += sum(self.works[unit].samples[-1] for unit in group)
                bar.reach(done)  # votes that stop early take fewer passes
        self.processes.wait()

    def _run_group(self, group: Sequence[str], advance: Callable[[int], object]) -> None:
        """Run the units of ``group`` that no equal run beside this one has stored meanwhile."""
        self.store.refresh()
        missing = [unit for unit in group if not self.store.has(unit)]
        if missing:
            tables = self.works[missing[0]].run_units(missing, advance)
            for unit, rows in zip(missing, tables, strict=True):
                self.store.write(unit, rows)

    @property
    def complete(self) -> bool:
        """Whether the store has every unit, of all parts."""
        if self.store.folder is None:
            return all(self.store.has(unit) for unit in self.works)
        current = Store(self.store.folder)  # other processes write too
        return all(current.has(unit) for unit in self.works)

    def rows(self) -> Rows:
        """Return all rows, in the order of the settings; their metadata names the models.

        Raises:
            InputError: some are missing.
        """
        if not self.complete:
            raise InputError("some units are missing: run the other parts, and merge them")
        # A setting may lack a column that another has, such as a target.
        tables = [self._rows_of(unit) for unit in self.works]
        try:
            rows = pa.concat_tables(tables, promote_options="default")
        except pa.ArrowException as error:
            raise InputError(
                f"the rows in {self.store.folder} do not fit together ({error}): delete them to "
                "redo them"
            ) from error
        models = set().union(*(work.keys.models for work in self.works.values()))
        return rows.replace_schema_metadata({MODELS: json.dumps(sorted(models))})

    def _rows_of(self, unit: str) -> Rows:
        work, rows = self.works[unit], self.store.read([unit])
        if len(rows) != self._images(unit) * len(work.rules) * len(work.samples):
            raise InputError(
                f"{self.store.folder} holds too few or too many rows of {unit}: redo it"
            )
        return rows

    def _missing(self) -> list[str]:
        return [unit for unit in self.mine if not self.store.has(unit)]

    def _groups(self, units: Iterable[str]) -> Iterator[list[str]]:
        """Yield units in groups that vote together: of one evaluation, a tile at most."""
        group: list[str] = []
        for unit in units:
            work = self.works[unit]
            if group and (work is not self.works[group[0]] or len(group) >= work.units_at_once):
                yield group
                group = []
            group.append(unit)
        if group:
            yield group

    def _images(self, unit: str) -> int:
        work = self.works[unit]
        return min(UNIT_IMAGES, len(work.images) - work.units[unit][1])

    def _attack_passes(self, missing: Sequence[str]) -> Iterable[float]:
        """Yield the passes that each unit's attack will take."""
        per_image: dict[str, float] = {}
        counted: set[str] = set()
        for unit in missing:
            work, (name, at) = self.works[unit], self.works[unit].units[unit]
            if work.attacks[name] is None:
                continue
            if work.cache is not None:
                key = work.keys.of_examples(name, at)
                if key in counted or work.cache.has(key):  # once for several settings
                    continue
                counted.add(key)
            if name not in per_image:  # the passes of an attack hardly depend on sigma and radius
                per_image[name] = _probe(work, name)
            yield per_image[name] * self._images(unit)


class _Passes:
    """Shows stage and passes of the attack in hand beside the number of the unit, each second."""

    def __init__(self, bar: Bar, number: str, text: str) -> None:
        self.bar, self.number, self.passes = bar, number, 0
        self.told = time.monotonic()
        self.stage(text)

    def stage(self, text: str) -> None:
        standing = _LEFT.sub(r"\1 of \2 right", text)
        self.text = f"{self.number} {standing}"
        self.bar.update(self.text)

    def __call__(self, images: int) -> None:
        self.passes += images
        if (now := time.monotonic()) - self.told >= 1:
            self.told = now
            spent = f"{self.passes / 1000:,.0f}k" if self.passes >= 10_000 else f"{self.passes:,}"
            self.bar.update(f"{self.text}, {spent} passes")


def _probe(work: Evaluation, name: str) -> float:
    images, labels = work.images[:_PROBED], work.labels[:_PROBED]
    device = device_of(work.target, images)
    with Cost().on(queried_by(work.attacks[name], work.target)) as cost:
        work.run_attack(name, 0, images.to(device), labels.to(device))
    return (cost.forwards + 2 * cost.backwards) / len(images)


def _seconds_per_pass(work: Evaluation) -> float:
    images = work.images[:_TIMED]
    images = images.to(device_of(work.target, images))
    list(passes(work.classifier.model, images, 1, seed=0))
    begun = time.perf_counter()
    list(passes(work.classifier.model, images, 4, seed=0))
    return (time.perf_counter() - begun) / (4 * len(images))
