"""The table of results: one row per image and setting, from which all figures are computed."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from smoothinfer.errors import InputError
from smoothinfer.numerics.statistics import Interval, mean_of, mean_share, proportion
from smoothinfer.types import CLEAN

Rows: TypeAlias = pa.Table

# Columns about the image; every other column describes the setting.
IMAGE_COLUMNS = (
    "image",
    "label",
    "predicted",
    "correct",
    "share",  # of passes that put the verdict first
    "hits",  # passes that put the label first
    "used",  # passes counted
    "distance",
    "eight_bit",  # whether a picture file could hold the image as it was shown
    "forwards",  # passes of the network spent on crafting the image
    "backwards",
)


def setting_columns(rows: Rows) -> list[str]:
    """Return the columns that describe a setting, the attack among them."""
    return [name for name in rows.column_names if name not in IMAGE_COLUMNS]


def crafted_setting(description: Mapping[str, Any]) -> str:
    """Return as JSON what examples were crafted for: all of a setting but what votes on them.

    >>> crafted_setting({"sigma": 0.1, "attack": "pgd", "rule": "soft", "norm": None})
    '{"attack": "pgd", "sigma": 0.1}'
    """
    left_out = ("rule", "samples", "stop", "delta")
    kept = {k: v for k, v in description.items() if v is not None and k not in left_out}
    return json.dumps(kept, sort_keys=True, default=str)


def as_table(rows: Any) -> Rows:
    """Return the Arrow table behind the result of `evaluate`, or the table itself."""
    return getattr(rows, "table", rows)


def rows_of(rows: Rows, setting: Mapping[str, Any]) -> Rows:
    """Return the rows that have the values of ``setting``; ``None`` asks for those without one.

    >>> rows_of(pa.table({"sigma": [0.1, None], "image": [0, 1]}), {"sigma": None}).num_rows
    1
    """
    for column, value in setting.items():
        found = rows[column]  # may be of type null, which compares with nothing
        rows = rows.filter(pc.is_null(found) if value is None else pc.equal(found, value))
    return rows


def accuracy(rows: Rows) -> Interval:
    """Return the share of correct rows, with its 95 % interval over images.

    Raises:
        InputError: the rows are of several settings, such as clean and attacked.

    >>> accuracy(pa.table({"correct": [True, False, True, True]})).value
    0.75
    """
    rows = as_table(rows)
    many = [name for name in setting_columns(rows) if len(rows[name].unique()) > 1]
    if many:
        raise InputError(
            f"these rows differ in {', '.join(many)}: filter them, as in "
            f"rows.filter({many[0]}=...), or ask rows.accuracy() for the accuracy of each setting"
        )
    return proportion(int(pc.sum(rows["correct"].cast(pa.int64())).as_py() or 0), len(rows))


def summarise(rows: Rows) -> list[dict[str, Any]]:
    """Return one entry per setting: ``description``, and figures ``clean`` and ``attacked``.

    Each of the two has ``value``, ``low``, ``high`` (accuracy of the vote, 95 % interval over
    ``images``), ``per_draw`` (share of right passes), ``gain`` (accuracy of the vote minus that
    share, with the interval of the paired difference over images), ``every_draw`` (share of images
    that all passes get right), ``per_draw_interval`` and ``every_draw_interval`` (95 %, over
    images), and, if attacked, ``forwards`` and ``backwards`` (passes of the network that the attack
    spent on an image). Clean rows (attack ``"none"``) are joined to every attack with the same
    other columns.

    One pass is one draw of the weights for all images, and no interval over images covers its luck:
    beside more passes, ``samples`` 1 stands for the mean over the most of them.
    """
    rows = as_table(rows)
    columns = setting_columns(rows)
    used = rows["used"] if "used" in rows.column_names else rows["samples"]
    rows = rows.append_column("always", pc.equal(rows["hits"], used))
    share = pc.divide(rows["hits"].cast(pa.float64()), used)
    # Votes that stopped early count as if their shares had held to the last pass.
    whole = pc.multiply(
        rows["hits"].cast(pa.float64()), pc.divide(rows["samples"], used.cast(pa.float64()))
    )
    rows = rows.set_column(rows.column_names.index("hits"), "hits", whole)
    rows = rows.append_column("gain", pc.subtract(rows["correct"].cast(pa.float64()), share))
    means = [(name, "mean") for name in ("hits", "gain", "forwards", "backwards")]
    sums, spreads = (
        [("correct", "sum"), ("always", "sum")],
        [("gain", "stddev"), ("hits", "stddev")],
    )
    groups = rows.group_by(columns, use_threads=False).aggregate(
        [*sums, ("correct", "count"), *means, *spreads]
    )
    clean: dict[tuple[Any, ...], Measured] = {}
    attacked: list[tuple[dict[str, Any], Measured]] = []
    entries = groups.to_pylist()
    measures = [_measured(entry) for entry in entries]
    _average_one_pass(entries, measures)
    for entry, measured in zip(entries, measures, strict=True):
        if entry["attack"] == CLEAN:
            clean[_without_attack(entry)] = measured
        else:
            attacked.append((entry, measured))
    bare = [
        (dict(zip(_kept(columns), key, strict=True)) | {"attack": CLEAN}, None) for key in clean
    ]
    return [
        {"description": entry, "clean": clean.get(_without_attack(entry)), "attacked": measured}
        for entry, measured in (attacked or bare)
    ]


Measured = dict[str, Any]
_ATTACK_COLUMNS = ("attack", "radius", "norm")


def _measured(entry: dict[str, Any]) -> Measured:
    """Take the figures out of an aggregated ``entry``; its description stays."""
    share = proportion(entry.pop("correct_sum"), entry.pop("correct_count"))
    gain = mean_of(entry.pop("gain_mean"), entry.pop("gain_stddev"), share.images)
    hits, spread = (entry.pop(f"hits_{name}") / entry["samples"] for name in ("mean", "stddev"))
    draws = mean_share(hits, spread, share.images)
    every = proportion(entry.pop("always_sum"), share.images)
    figures = share.as_dict() | {
        "per_draw": draws.value,
        "per_draw_interval": [draws.low, draws.high],
        "gain": {name: value for name, value in gain.as_dict().items() if name != "images"},
        "every_draw": every.value,
        "every_draw_interval": [every.low, every.high],
    }
    costs = {name: entry.pop(f"{name}_mean") for name in ("forwards", "backwards")}
    return figures if entry["attack"] == CLEAN else figures | costs


def _average_one_pass(entries: Sequence[dict[str, Any]], measures: Sequence[Measured]) -> None:
    """Let ``samples`` 1 be the mean over the passes of the largest number measured beside it."""
    most: dict[tuple[Any, ...], tuple[int, Measured]] = {}
    for entry, measured in zip(entries, measures, strict=True):
        key = _without_passes(entry)
        if key not in most or most[key][0] < entry["samples"]:
            most[key] = entry["samples"], measured
    for entry, measured in zip(entries, measures, strict=True):
        samples, mean = most[_without_passes(entry)]
        if entry["samples"] == 1 < samples:
            low, high = mean["per_draw_interval"]
            measured |= {"value": mean["per_draw"], "low": low, "high": high}
            for name in ("per_draw", "every_draw"):  # of one pass they are the same
                measured |= {name: mean["per_draw"], f"{name}_interval": [low, high]}


def _without_passes(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(value for name, value in entry.items() if name not in ("samples", "rule"))


def _kept(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in _ATTACK_COLUMNS]


def _without_attack(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in _kept(list(entry)))
