"""One loop over units of work, of one evaluation or of many: what is there is not done again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from smoothinfer.errors import InputError
from smoothinfer.evaluation.store import Store
from smoothinfer.evaluation.rows import Rows
from smoothinfer.evaluation.units import Evaluation
from smoothinfer.runtime.processes import Processes


def do_units(
    works: Mapping[str, Evaluation], units: Sequence[str], store: Store, progress: bool = False
) -> None:
    """Do those of ``units`` that ``store`` lacks, and wait for the other processes to do theirs.

    Args:
        works: the evaluation of each unit.
        units: this process's.
        store: receives the rows of each.
        progress: show a bar that counts passes, in the main process.
    """
    processes = Processes()
    with _bar(progress and processes.main) as bar:
        missing = [unit for unit in units if not store.has(unit)]
        done = sum(works[unit].samples[-1] for unit in set(units) - set(missing))
        total = sum(works[unit].samples[-1] for unit in units)
        task = bar.add_task("", total=total, completed=done)
        count = len(units) - len(missing)
        for together in _together(works, missing):
            count += len(together)
            bar.update(task, description=f"{count}/{len(units)} {together[0][:40]}")
            found = works[together[0]].do(together, partial(bar.advance, task))
            for unit, rows in zip(together, found, strict=True):
                store.write(unit, rows)
    processes.wait()


def rows_of(work: Evaluation, store: Store, progress: bool = False) -> Rows:
    """Return all rows of ``work``; what ``store`` lacks is done, shared out among the processes.

    Raises:
        InputError: several processes have no folder in common.
    """
    processes = Processes()
    if processes.count > 1 and store.folder is None:
        raise InputError("several processes share their rows through a folder: give out=")
    units = list(work.units)
    do_units(dict.fromkeys(units, work), processes.share(units), store, progress)
    return store.read(units)


def _together(works: Mapping[str, Evaluation], units: Iterable[str]) -> Iterator[list[str]]:
    """Yield units in groups whose votes are cast together: of one evaluation, a tile at most."""
    group: list[str] = []
    for unit in units:
        work = works[unit]
        if group and (work is not works[group[0]] or len(group) >= work.at_once):
            yield group
            group = []
        group.append(unit)
    if group:
        yield group


def _bar(shown: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), disable=not shown, transient=True)
