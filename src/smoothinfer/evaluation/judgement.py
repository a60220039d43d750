"""The protocol by which a model is judged, random or not, and the verdict in words."""

from typing import Any

import pyarrow.compute as pc

from smoothinfer.config.components import Component
from smoothinfer.evaluation.rows import CLEAN, Rows
from smoothinfer.evaluation.standing import ASKED_AGAIN, Standing, standing_of
from smoothinfer.numerics.statistics import Interval, proportion

AUTHORS = "one_draw(steps=20)"  # the protocol of several random defences' own scripts
_DRAWS = {"quick": (1, 4, 16), "standard": (1, 4, 16, 64), "full": (1, 4, 16, 64)}
LEANS = (
    "the standard attack leaves an image when its vote falls, so this difference leans below zero"
)
_MANY = 16  # draws from which PGD counts as dear


def dear(budget: str) -> list[str]:
    """Return the attacks of the protocol that cost most, which may be run on fewer images.

    >>> dear("quick")
    ["standard(budget='quick')", 'pgd(steps=20, draws=16)']
    """
    return [strongest_of(budget), *(_averaged(count) for count in _DRAWS[budget] if count >= _MANY)]


def _averaged(draws: int) -> str:
    return f"pgd(steps=20, draws={draws})"


def strongest_of(budget: str) -> str:
    """Return the attack that the verdict is about.

    >>> strongest_of("quick")
    "standard(budget='quick')"
    """
    return str(Component("standard", {"budget": budget}))


def protocol(budget: str, random: bool) -> list[str]:
    """Return the attacks of the protocol, the strongest first.

    A model without noise needs no others.

    >>> protocol("quick", random=False)
    ["standard(budget='quick')"]
    """
    draws = [_averaged(count) for count in _DRAWS[budget]]
    return [strongest_of(budget), *([AUTHORS, *draws] if random else [])]


def judged(rows: Rows, strongest: str, random: bool) -> dict[str, Any]:
    """Return the standing under each attack, by its name, and a verdict in words.

    Each standing is over all images of its attack; the verdict and its numbers are over the images
    that every attack was run on.

    Args:
        rows: of one model, clean and attacked, one vote for each.
        strongest: the attack that the verdict is about.
        random: whether passes differ.
    """
    compared = _standings(on_every_attack(rows))
    clean, under = compared[CLEAN], compared[strongest]
    attacked = [each for name, each in compared.items() if name != CLEAN]
    # The standard attack is after the vote: another one may hurt single passes more.
    mean = min((each.mean for each in attacked), key=lambda found: found.value)
    worst = min((each.worst for each in attacked), key=lambda found: found.value)
    left = worst_case(rows)
    return {
        "random": random,
        "standings": {name: each.to_dict() for name, each in _standings(rows).items()},
        "mean": mean.as_dict(),
        "worst": worst.as_dict(),
        "vote": under.vote.as_dict(),
        "worst case": left.as_dict(),
        "verdict": (
            verdict_of(clean, under, left, mean, worst) if random else _plain_verdict(clean, under)
        ),
    }


def _standings(rows: Rows) -> dict[str, Standing]:
    names = dict.fromkeys(rows["attack"].to_pylist())
    return {name: standing_of(rows.filter(pc.equal(rows["attack"], name))) for name in names}


def on_every_attack(rows: Rows) -> Rows:
    """Return the rows of the images that every attack of ``rows`` was run on.

    >>> import pyarrow as pa
    >>> rows = pa.table({"image": [0, 1, 0], "attack": ["none", "none", "pgd"]})
    >>> on_every_attack(rows)["image"].to_pylist()
    [0, 0]
    """
    counts = rows.group_by("image").aggregate([("attack", "count_distinct")])
    attacks = len(pc.unique(rows["attack"]))
    whole = counts.filter(pc.equal(counts["attack_count_distinct"], attacks))["image"]
    return rows.filter(pc.is_in(rows["image"], value_set=pc.unique(whole)))


def worst_case(rows: Rows) -> Interval:
    """Return the share of images whose vote is right under every attack, and clean.

    Of images that only some of the attacks were run on, none is counted.
    """
    right = on_every_attack(rows).group_by("image").aggregate([("correct", "min")])["correct_min"]
    return proportion(pc.sum(right).as_py() or 0, len(right))


def verdict_of(
    clean: Standing, under: Standing, left: Interval, mean: Interval, worst: Interval
) -> str:
    """Say what is left of a random model's accuracy, and what its vote adds.

    Args:
        clean: without an attack.
        under: the standard attack.
        left: of the vote, in the worst case of every image.
        mean, worst: of single passes and of ten in a row, under the attack that is worst for them.
    """
    sign = printed_sign(under.gain)
    adds = "adds accuracy" if sign > 0 else "adds no measurable robustness"
    caveat = f"; {LEANS}" if sign < 0 else ""
    return (
        f"The vote is right on {left} % of {left.images} images in the worst case over all attacks "
        f"({under.vote} under the standard attack alone, {clean.vote} clean). A single pass "
        f"keeps {mean} % under the attack that hurts it most, {ASKED_AGAIN} passes in a "
        f"row {worst} %. Under the standard attack the vote {adds}: "
        f"{points(under.gain)} points over a pass (clean {points(clean.gain)}){caveat}. With "
        f"other draws of the noise the vote's figure would differ by about {100 * under.luck:.1f} "
        f"points, or by up to {100 * under.shared_luck:.1f} if all images were voted on under the "
        "same draws."
    )


def _plain_verdict(clean: Standing, under: Standing) -> str:
    return (
        f"Under the standard attack {under.vote} % of {under.vote.images} images are left (clean "
        f"{clean.vote}). The model has no noise: every pass gives the same answer."
    )


def points(gain: Interval) -> str:
    """Write a gain in points, with its interval."""
    return f"{100 * gain.value:+z.1f} ({100 * gain.low:+z.1f} to {100 * gain.high:+z.1f})"


def printed_sign(gain: Interval) -> int:
    """Return 1 where the interval of a gain, as it is printed, lies above zero, -1 below, else 0.

    An end that prints as +0.0 excludes nothing that a reader can see.

    >>> printed_sign(Interval(0.036, 0.00016, 0.071, 30)), printed_sign(Interval(0.1, 0.01, 0.2, 9))
    (0, 1)
    """
    low, high = (round(100 * end, 1) for end in (gain.low, gain.high))
    return 1 if low > 0 else -1 if high < 0 else 0


def leads_clearly(best: Interval, other: Interval) -> bool:
    """Say whether ``best`` lies above ``other`` as their intervals are printed.

    >>> leads_clearly(Interval(0.5, 0.4, 0.6, 100), Interval(0.3, 0.2, 0.39996, 100))
    False
    """
    low, high = (round(100 * end, 1) for end in (best.low, other.high))
    return low > high
