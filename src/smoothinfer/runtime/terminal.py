"""The terminal of all commands: what it prints is text, never markup and never a control code."""

from typing import Any

from rich.console import Console
from rich.text import Text

from smoothinfer.runtime.printable import printable


class Terminal(Console):
    """A console of rich that shows names, paths and cards as they are.

    Square brackets are no markup, ``:smile:`` is no picture, and nothing is coloured by what it
    looks like. A line stays a line: it is not broken at the width of the terminal, so that paths
    can be copied, and a line end within it is shown as an escape.

    Args:
        quiet: print nothing, as in all processes but the first.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        plain: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
        super().__init__(quiet=quiet, soft_wrap=True, **plain)

    def render_str(self, text: str, **how: Any) -> Text:  # type: ignore[override]
        # rich turns every string into text here: those of print, of tables, and of their titles.
        return super().render_str(printable(text), **how)

    def print_lines(self, text: str) -> None:
        """Print ``text``, which may have several lines."""
        self.print(*text.rstrip("\n").split("\n"), sep="\n")
