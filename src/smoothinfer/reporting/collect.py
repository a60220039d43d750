"""The contents of result folders: everything that smoothinfer wrote, read back for a report."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.evaluation.rows import Rows, summarise
from smoothinfer.reporting.board import Board, read_board
from smoothinfer.reporting.comparison import Comparison, read_comparison
from smoothinfer.reporting.members import read_json_member
from smoothinfer.reporting.pictures import Picture, read_pictures
from smoothinfer.reporting.shapes import AUDIT, CERTIFIED, SETTINGS, STANDING
from smoothinfer.reporting.table_file import read_table
from smoothinfer.reporting.tables import Table, cell_text, sort_key
from smoothinfer.runtime.printable import printable

Record = dict[str, Any]
MEASURES = ("clean", "attacked")
NOTE = (
    "Accuracies in % with 95 % intervals over images (Wilson); ± is the standard deviation over "
    "seeds. Verdicts are voted from noise that the attacks never saw; samples 1 beside more is the "
    "mean over all of these passes."
)
_SHAPES = {
    "audit": AUDIT,
    "certified": CERTIFIED,
    "settings": SETTINGS,
    "standing": STANDING,
}


@dataclass
class Source:
    """The contents of one folder.

    Attributes:
        name: of the folder.
        path: as it was given.
        rows: of evaluations and sweeps.
        settings: of the command that wrote it.
        comparison: with the paper, written by ``reproduce``.
        audit, certified, board: written by ``audit``, ``certify`` and ``leaderboard``.
        standing: written by ``standard``, besides its rows.
        pictures: to show: figures, curves, noise, sheets of adversarial examples.
        left_out: what is not shown and why, a line for each.
    """

    name: str
    path: Path
    rows: Rows | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    audit: dict[str, Any] | None = None
    certified: dict[str, Any] | None = None
    board: Board | None = None
    standing: dict[str, Any] | None = None
    pictures: list[Picture] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(folder: str | Path) -> Source:
    """Read a folder of ``evaluate``, ``standard``, ``sweep``, ``audit``, ``certify`` and the like.

    Raises:
        InputError: there is nothing of the kind, or something in it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"no such folder: {path}")
    source = Source(printable(path.name or path.resolve().name), path)
    for name, shape in _SHAPES.items():
        if (path / f"{name}.json").exists():
            setattr(source, name, read_json_member(f"{name}.json", path, shape))
    if (path / "table.parquet").exists():
        source.rows, source.settings = read_table(path)
    elif list(path.glob("rows/*.parquet")) and source.certified is None:
        raise InputError(_why_no_table(path))
    if list(path.glob("cards/*.json")):
        source.board = read_board(path / "cards")
    source.comparison = read_comparison(path)
    if source.comparison is not None and source.comparison.command:
        source.settings = {"command": source.comparison.command}
    drawn = [] if source.comparison is None else source.comparison.figures
    source.pictures, source.left_out = read_pictures(path, drawn)
    for content in (source.audit, source.certified):
        source.settings = source.settings or (content or {}).get("settings") or {}
    source.settings = source.settings or _commands_of_pictures(path)
    own = (source.rows, source.comparison, source.audit, source.certified, source.board)
    if not source.pictures and all(part is None for part in own):
        why = "".join(f"; left out: {line}" for line in source.left_out)
        raise InputError(
            f"{path} holds no rows, audit, certificates, leaderboard or pictures to report{why}"
        )
    return source


def _why_no_table(path: Path) -> str:
    """Say why a folder has rows and no table of them."""
    board = path.resolve().parents[1] if path.resolve().parent.name == "entries" else None
    if board is not None and list(board.glob("cards/*.json")):
        return f"{path} is a part of a leaderboard: report {board}"
    return f"{path} is incomplete. Rerun the command that created it to resume."


def _commands_of_pictures(folder: Path) -> dict[str, Any]:
    """Return the commands of ``smoothinfer picture`` that drew the pictures in ``folder``."""
    beside = [path.with_suffix(".json") for path in sorted(folder.glob("*.png"))]
    saved = [read_json_member(path.name, folder, SETTINGS) for path in beside if path.exists()]
    saved = [each for each in saved if each.get("command")]
    if not saved:
        return {}
    computers = sorted({name for each in saved for name in each.get("computers") or []})
    return {"command": "\n".join(each["command"] for each in saved), "computers": computers}


def records(rows: Rows) -> list[Record]:
    """Return one flat record for each setting, over its seeds.

    ``clean`` and ``attacked`` hold the mean accuracy in %, the ends of the 95 % interval over
    images (their means over seeds), the gain of the vote over one pass (``gain``, in points) and,
    with several seeds, the standard deviation over them.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    names: list[str] = []
    for entry in summarise(rows):
        setting = {k: v for k, v in entry["description"].items() if k != "seed"}
        names += [name for name in setting if name not in names]
        groups.setdefault(tuple(sorted(setting.items(), key=str)), []).append(entry)
    found = [_over_seeds(dict(key), entries, names) for key, entries in groups.items()]
    return sorted(found, key=lambda record: [sort_key(record[name]) for name in names])


def _over_seeds(setting: Record, entries: list[dict[str, Any]], names: list[str]) -> Record:
    record: Record = {name: setting.get(name) for name in names}
    record["seeds"] = len(entries)
    for measure in MEASURES:
        figures = [entry[measure] for entry in entries if entry[measure]]
        record[measure] = _mean_of(figures) if figures else None
    return record


def _mean_of(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the means of a figure over seeds, in per cent."""
    flat = [each | {"gain": each["gain"]["value"]} for each in figures]
    numbers = [name for name, value in flat[0].items() if not isinstance(value, list)]
    means = {name: statistics.fmean(each[name] for each in flat) for name in numbers}
    mean: dict[str, Any] = {name: round(100 * means[name], 3) for name in ("value", "low", "high")}
    spread = statistics.stdev([f["value"] for f in figures]) if len(figures) > 1 else None
    mean["std"] = None if spread is None else round(100 * spread, 3)
    mean["images"] = figures[0]["images"]
    mean |= {name: round(100 * means[name], 3) for name in ("every_draw", "gain")}
    if "forwards" in means:
        mean |= {name: round(means[name], 1) for name in ("forwards", "backwards")}
    return mean


def varying(found: list[Record]) -> list[str]:
    """Return the columns that tell the records apart, in their order."""
    names = [name for name in found[0] if name not in MEASURES] if found else []
    return [name for name in names if len({str(record[name]) for record in found}) > 1]


def common_text(found: list[Record], names: list[str]) -> str:
    """Return the columns that all records share, besides the varying columns ``names``."""
    shared = {
        name: value
        for name, value in found[0].items()
        if name not in (*names, *MEASURES) and value is not None
    }
    images = (found[0]["attacked"] or found[0]["clean"])["images"]
    settings = ", ".join(_setting_text(name, value) for name, value in shared.items())
    return f"{settings}; {images} images."


def _setting_text(name: str, value: Any) -> str:
    if name == "seeds":  # a count, and no seed
        return f"{value} seed{'' if value == 1 else 's'}"
    return f"{name} {cell_text(value)}"


def records_table(found: list[Record], names: list[str] | None = None) -> Table:
    """Return a table of records: ``names``, the columns that tell them apart, and accuracies."""
    names = varying(found) if names is None else names
    lines = [
        [cell_text(record[name]) for name in names] + [accuracy_text(record[m]) for m in MEASURES]
        for record in found
    ]
    return Table([*names, *MEASURES], lines, left=len(names))


def accuracy_text(figure: Mapping[str, Any] | None) -> str:
    """Write an accuracy of a record: mean, standard deviation over several seeds, interval.

    >>> accuracy_text({"value": 50.0, "low": 40.4, "high": 59.6, "std": None})
    '50.0 (40.4-59.6)'
    """
    if figure is None:
        return ""
    spread = "" if figure["std"] is None else f" ± {figure['std']:.1f}"
    return f"{figure['value']:.1f}{spread} ({figure['low']:.1f}-{figure['high']:.1f})"
