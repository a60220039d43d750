"""The votes of the passes on a few images, clean and attacked, for captions and tables."""

from collections.abc import Sequence
from typing import Any

import pyarrow.compute as pc

from smoothinfer.evaluation.rows import CLEAN, IMAGE_COLUMNS, Rows, setting_columns

Votes = dict[int, dict[str, Any]]
_SHOWN = 10


def first_votes(rows: Rows, images: int = _SHOWN) -> dict[str, Votes]:
    """Return for each attack, the clean images first, the rows of the first images by number.

    Of many settings the first one at the largest number of passes is taken.

    >>> import pyarrow as pa
    >>> row = {"image": 0, "label": 3, "predicted": 3, "share": 0.75, "hits": 6}
    >>> row |= {"attack": "none", "samples": 8, "rule": "prediction"}
    >>> first_votes(pa.Table.from_pylist([row]))["none"][0]["share"]
    0.75
    """
    few = rows.filter(pc.less(rows["image"], images))
    few = few.filter(pc.equal(few["samples"], pc.max(few["samples"])))
    columns = few.select([name for name in few.column_names if name in (*IMAGE_COLUMNS, "samples")])
    fixed = [name for name in setting_columns(few) if name not in ("attack", "radius", "target")]
    settings = few.select(fixed).to_pylist()
    found: dict[str, Votes] = {CLEAN: {}}
    for row, setting, attack in zip(
        columns.to_pylist(), settings, few["attack"].to_pylist(), strict=True
    ):
        if setting == settings[0]:
            found.setdefault(attack, {}).setdefault(row["image"], row)
    return found


def vote_text(row: dict[str, Any] | None, classes: Sequence[str]) -> str:
    """Return the winning class and its number of passes.

    >>> vote_text({"predicted": 1, "share": 0.75, "samples": 8}, ["cat", "dog"])
    'dog 6/8'
    """
    if row is None:
        return ""
    name = class_text(row["predicted"], classes)
    return f"{name} {round(row['share'] * row['samples'])}/{row['samples']}"


def class_text(number: int, classes: Sequence[str]) -> str:
    """Return the name of a class, or its number where it has none.

    >>> class_text(1, ["cat", "dog"]), class_text(-1, ["cat", "dog"])
    ('dog', '-1')
    """
    return classes[number] if 0 <= number < len(classes) else str(number)
