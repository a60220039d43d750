"""The progress bar of all long work: what is done, how much is left, how long it takes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from smoothinfer.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")
# Steps of a minute are common: the time left is estimated from the last hour of them.
_ESTIMATE_SECONDS = 3600.0
_TEXT_WIDTH = 52  # characters of 80; numbers and a short bar take the others
_LINE_SECONDS = 60.0  # between lines where no terminal shows the bar


class Bar(NamedTuple):
    """A running bar: `advance` it, let it `reach` a position, or `update` its text."""

    progress: Progress
    task: TaskID

    def advance(self, amount: int = 1) -> None:
        self.progress.advance(self.task, amount)

    def reach(self, completed: int) -> None:
        """Count as done what stopped before its end."""
        self.progress.update(self.task, completed=completed)

    def update(self, description: str, completed: int | None = None) -> None:
        self.progress.update(self.task, description=printable(description), completed=completed)


@contextlib.contextmanager
def progress_bar(
    description: str,
    total: int,
    *,
    shown: bool = True,
    completed: int = 0,
    console: Console | None = None,
    unit: str = "",
) -> Iterator[Bar]:
    """Show a bar of length ``total`` inside the block, of which ``completed`` is done already.

    Where nobody watches, as in a log file, a line a minute says the same.

    Args:
        shown: draw the bar; ``False`` for library calls and for all processes but the first.
        console: of rich, where the work prints lines above the bar.
        unit: of ``total``, for the lines.
    """
    from rich import progress as rich_progress
    from rich.table import Column

    # A long text gives way to the numbers.
    number = Column(no_wrap=True, min_width=2 * len(str(total)) + 1)
    text = Column(no_wrap=True, overflow="ellipsis", max_width=_TEXT_WIDTH)
    progress = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False, table_column=text),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(table_column=number),
        rich_progress.TimeRemainingColumn(),
        console=console,
        disable=not shown,
        transient=True,
        speed_estimate_period=_ESTIMATE_SECONDS,
    )
    with progress:
        task = progress.add_task(
            printable(description), total=total, completed=completed, unit=unit
        )
        watched = not shown or progress.console.is_terminal
        with contextlib.nullcontext() if watched else _lines(progress, task):
            yield Bar(progress, task)


@contextlib.contextmanager
def _lines(progress: Progress, task: TaskID) -> Iterator[None]:
    """Print a line a minute inside."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_LINE_SECONDS):
            print(line_of(progress, task), flush=True)

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def line_of(progress: Progress, task: TaskID) -> str:
    """Return what is done, what is left and how long that takes, as one line."""
    found = next(each for each in progress.tasks if each.id == task)
    said = f"{found.description or 'done'}: {found.completed:,.0f} of {found.total or 0:,.0f}"
    said += f" {unit}" if (unit := found.fields.get("unit")) else ""
    seconds = found.time_remaining
    if seconds is None:
        return said
    minutes = round(seconds / 60)
    hours = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    return f"{said}, about {hours} left" if minutes else f"{said}, less than a minute left"


def track(items: Sequence[Item], description: str, *, shown: bool = True) -> Iterable[Item]:
    """Yield ``items`` while a bar shows how many are done.

    >>> list(track([1, 2], "counting", shown=False))
    [1, 2]
    """
    with progress_bar(description, len(items), shown=shown) as bar:
        for item in items:
            yield item
            bar.advance()
