"""Options with several values, which may also be given several times."""

from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any


class Repeated(Action):
    """Adds the values of a repeated option: ``--set a=1 --set b=2`` is ``--set a=1 b=2``.

    >>> parser = ArgumentParser()
    >>> _ = parser.add_argument("--set", nargs="+", default=["c"], action=Repeated)
    >>> parser.parse_args(["--set", "a", "--set", "b"]).set, parser.parse_args([]).set
    (['a', 'b'], ['c'])
    """

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        held = getattr(namespace, self.dest)
        before = [] if held is self.default else held
        setattr(namespace, self.dest, [*before, *(values or ())])
