"""The progress bar of all long work: what is done, how much is left, how long it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Item = TypeVar("Item")
# Steps of a minute are common: the time left is estimated from the last hour of them.
_ESTIMATE_SECONDS = 3600.0


class Bar:
    """A running bar: `advance` it, or `update` its text and position."""

    def __init__(self, progress: Progress, task: Any) -> None:
        self._progress, self._task = progress, task

    def advance(self, amount: int = 1) -> None:
        """Move on by ``amount``."""
        self._progress.advance(self._task, amount)

    def update(self, description: str, completed: int | None = None) -> None:
        """Change the text beside the bar and, where given, the position."""
        self._progress.update(self._task, description=description, completed=completed)


@contextlib.contextmanager
def progress_bar(
    description: str,
    total: int,
    *,
    shown: bool = True,
    completed: int = 0,
    console: Console | None = None,
) -> Iterator[Bar]:
    """Show a bar inside the block.

    Args:
        description: text beside the bar.
        total: length of the work.
        shown: draw the bar; ``False`` for library calls and for all processes but the first.
        completed: how much of the work was done before.
        console: of rich, where the work prints lines above the bar.

    >>> with progress_bar("voting", 3, shown=False) as bar:
    ...     bar.advance()
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not shown,
        transient=True,
        speed_estimate_period=_ESTIMATE_SECONDS,
    )
    with progress:
        yield Bar(progress, progress.add_task(description, total=total, completed=completed))


def track(items: Sequence[Item], description: str, *, shown: bool = True) -> Iterable[Item]:
    """Yield ``items`` while a bar shows how many are done.

    >>> list(track([1, 2], "counting", shown=False))
    [1, 2]
    """
    with progress_bar(description, len(items), shown=shown) as bar:
        for item in items:
            yield item
            bar.advance()
