"""The progress bar of all long work: what is done, how much is left, how long it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from smoothinfer.runtime.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

Item = TypeVar("Item")
# Steps of a minute are common: the time left is estimated from the last hour of them.
_ESTIMATE_SECONDS = 3600.0


class Bar(NamedTuple):
    """A running bar: `advance` it, or `update` its text and position."""

    progress: Progress
    task: TaskID

    def advance(self, amount: int = 1) -> None:
        self.progress.advance(self.task, amount)

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
) -> Iterator[Bar]:
    """Show a bar of length ``total`` inside the block, of which ``completed`` is done already.

    Args:
        shown: draw the bar; ``False`` for library calls and for all processes but the first.
        console: of rich, where the work prints lines above the bar.
    """
    from rich import progress as rich_progress

    progress = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TimeRemainingColumn(),
        console=console,
        disable=not shown,
        transient=True,
        speed_estimate_period=_ESTIMATE_SECONDS,
    )
    with progress:
        task = progress.add_task(printable(description), total=total, completed=completed)
        yield Bar(progress, task)


def track(items: Sequence[Item], description: str, *, shown: bool = True) -> Iterable[Item]:
    """Yield ``items`` while a bar shows how many are done.

    >>> list(track([1, 2], "counting", shown=False))
    [1, 2]
    """
    with progress_bar(description, len(items), shown=shown) as bar:
        for item in items:
            yield item
            bar.advance()
