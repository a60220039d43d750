"""The stopping rules by name, and their check."""

import inspect
from collections.abc import Callable

from smoothinfer.config.calls import parse_call
from smoothinfer.engine.stopping import PPR, Betting, Exact, Fixed, Stopping, VoteSpec
from smoothinfer.engine.value_stop import Value
from smoothinfer.errors import MOST_PASSES, check_type, choose, plain_float, plain_int, unknown

STOPS: dict[str, Callable[..., Stopping]] = {
    "fixed": lambda spec, images: Fixed(spec.samples),
    "exact": Exact,
    "ppr": PPR,
    "betting": Betting,
    "value": Value,
}


def stopping(name: str, spec: VoteSpec, images: int) -> Stopping:
    """Return the stopping rule ``name``, perhaps with options, for ``images`` images.

    Raises:
        InputError: the name or an option is unknown, a number is out of range, or the voting rule
            does not suit it.

    >>> from smoothinfer.engine.voting import RULES
    >>> spec = VoteSpec(RULES["prediction"], samples=64, delta=1e-3, classes=10)
    >>> stopping("value(price=0.001)", spec, images=1).price
    0.001
    """
    plain_float("delta", spec.delta, above=0, below=1)
    plain_int("samples", spec.samples, 1, MOST_PASSES)
    check_type("stop", name, str, "stop='exact'")
    kind, options = parse_call(name)
    make = choose("stop", STOPS, kind)
    known = [each for each in inspect.signature(make).parameters if each not in ("spec", "images")]
    for option in options:
        if option not in known:
            raise unknown(f"option of stop {kind!r}", option, known)
    return make(spec, images, **options)
