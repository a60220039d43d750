"""Two results on the same images: points of difference, with the interval of pairs of answers.

``python -m benchmarks.paired FOLDER OTHER [--where sigma=0.24]``

A folder is of ``evaluate``, of ``certify``, or the entry of a leaderboard (``entries/NAME``).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from smoothinfer.evaluation.judgement import on_every_attack, points
from smoothinfer.evaluation.rows import Rows
from smoothinfer.numerics.statistics import Interval, mean_of

WORST = "worst case"
_RADII = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def rows_in(folder: Path, where: list[str]) -> Rows:
    """Return the rows at the most passes, where each column of ``where`` has the value named."""
    whole = folder / "table.parquet"
    rows = pq.read_table(whole if whole.exists() else folder / "rows")
    if "certified" in rows.column_names:
        return rows
    frame = rows.to_pandas()
    kept = frame["samples"] == frame["samples"].max()
    for column, value in (each.split("=", 1) for each in where):
        if column in frame:
            kept &= frame[column].astype(str) == value
    return rows.filter(kept.tolist())


def answers(rows: Rows, radii: tuple[float, ...] = _RADII) -> dict[str, pd.Series]:
    """Return whether each image counts, by attack, or by radius where rows are certificates."""
    frame = rows.to_pandas().set_index("image")
    if "certified" in frame:
        return {f"radius {at:g}": frame["correct"] & (frame["certified"] >= at) for at in radii}
    found = {attack: part["correct"] for attack, part in frame.groupby("attack")}
    worst = on_every_attack(rows).to_pandas().groupby("image")["correct"].min()
    return {**found, WORST: worst}


def difference(one: pd.Series, other: pd.Series) -> Interval:
    """Return the mean of one - other over the images of both.

    >>> round(difference(pd.Series([True, True]), pd.Series([True, False])).value, 2)
    0.5
    """
    apart = (one.astype(float) - other.astype(float)).dropna()
    return mean_of(float(apart.mean()), float(apart.std(ddof=0)), len(apart))


def main() -> None:
    """Print both accuracies and the difference in points, for all that both were asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs=2, type=Path)
    parser.add_argument("--where", nargs="*", default=[], metavar="COLUMN=VALUE")
    options = parser.parse_args()
    one, other = (answers(rows_in(folder, options.where)) for folder in options.folders)
    for name in (name for name in one if name in other):
        found = difference(one[name], other[name])
        both = one[name].index.intersection(other[name].index)
        means = (f"{100 * each.loc[both].mean():.1f}" for each in (one[name], other[name]))
        many = f" (clean and {len(one) - 2}, {len(other) - 2} attacks)" if name == WORST else ""
        told = f"{name}{many}: {' against '.join(means)} %"
        print(f"{told}, {points(found)} points, {found.images} images")


if __name__ == "__main__":
    main()
