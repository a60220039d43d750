"""What a report is made from: every folder that smoothinfer wrote, read back and told apart."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.evaluation.store import decoded
from smoothinfer.evaluation.rows import Rows, summarise
from smoothinfer.runtime.files import read_json
from smoothinfer.numerics.statistics import Interval
from smoothinfer.reporting.comparison import Comparison, read_comparison
from smoothinfer.reporting.tables import place_of, told

Record = dict[str, Any]
_TOLD = ("command", "asked", "computers", "versions", "data")
MEASURES = ("clean", "attacked")
NOTE = (
    "Accuracies in % with 95 % intervals over images (Wilson); ± is the standard deviation over "
    "seeds. Verdicts are voted from noise that the attacks never saw; samples 1 beside more is the "
    "mean over all of these passes."
)


@dataclass
class Source:
    """One folder, and what was found in it.

    Attributes:
        name: of the folder.
        path: as it was given.
        rows: of evaluations and sweeps.
        settings: how they were asked for.
        comparison: with the paper, as ``reproduce`` wrote it.
        audit, certified: what ``audit`` and ``certify`` wrote.
        pictures: PNG files worth showing: sheets of adversarial examples, curves, noise.
        sheets: those of them that show adversarial examples.
    """

    name: str
    path: Path
    rows: Rows | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    comparison: Comparison | None = None
    audit: dict[str, Any] | None = None
    certified: dict[str, Any] | None = None
    pictures: list[Path] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)


def collect(folder: str | Path) -> Source:
    """Read a folder of ``evaluate``, ``attack``, ``sweep``, ``audit``, ``certify`` or ``train``.

    Raises:
        InputError: there is nothing of the kind, or something in it is damaged.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"no such folder: {path}")
    found = Source(path.name or str(path.resolve().name), path)
    for name in ("audit", "certified", "settings"):
        if (path / f"{name}.json").exists():
            setattr(found, name, read_json(path / f"{name}.json"))
    if (path / "table.parquet").exists():
        found.rows, found.settings = _table(path)
    elif list(path.glob("rows/*.parquet")) and found.certified is None:
        raise InputError(f"{path} is not finished: the command that began it goes on with it")
    found.comparison = read_comparison(path)
    if found.comparison is not None and found.comparison.command:
        found.settings = {"command": found.comparison.command}
    found.sheets = sorted(path.glob("examples/**/*.png"))
    drawn = [] if found.comparison is None else found.comparison.figures
    found.pictures = [path / "figures" / name for name in drawn]
    found.pictures += [*sorted(path.glob("*.png")), *found.sheets]
    found.settings = found.settings or _drawn_by(path)
    shown = (found.rows, found.comparison, found.audit, found.certified, found.pictures)
    if not any(part is not None and part != [] for part in shown):
        raise InputError(f"{path} holds no rows, audit, certificates or pictures to report")
    return found


def _drawn_by(folder: Path) -> dict[str, Any]:
    """Return the commands of ``smoothinfer picture`` that drew what is in ``folder``."""
    beside = [path.with_suffix(".json") for path in sorted(folder.glob("*.png"))]
    told = [read_json(path) for path in beside if path.exists()]
    told = [each for each in told if "command" in each]
    if not told:
        return {}
    computers = sorted({name for each in told for name in each.get("computers", [])})
    return {"command": "\n".join(each["command"] for each in told), "computers": computers}


def _table(folder: Path) -> tuple[Rows, dict[str, Any]]:
    """Return the rows, and how those were asked for: ``settings.json`` may be of a later run."""
    content, path = (folder / "table.parquet").read_bytes(), folder / "summary.json"
    summary = read_json(path)
    if summary.get("table") != hashlib.sha256(content).hexdigest():
        raise InputError(f"{folder / 'table.parquet'} is not the table that {path} tells of")
    about = {name: summary[name] for name in _TOLD if name in summary}
    return decoded(content), about


def records(rows: Rows) -> list[Record]:
    """Return one flat record for each setting, over its seeds.

    ``clean`` and ``attacked`` hold the mean accuracy in %, the ends of the 95 % interval over
    images (their means over seeds), what the vote adds to one pass (``gain``, in points) and, with
    several seeds, the standard deviation over them.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    names: list[str] = []
    for entry in summarise(rows):
        about = {k: v for k, v in entry["description"].items() if k != "seed"}
        names += [name for name in about if name not in names]
        groups.setdefault(tuple(sorted(about.items(), key=str)), []).append(entry)
    found = [_over_seeds(dict(key), entries, names) for key, entries in groups.items()]
    return sorted(found, key=lambda record: [place_of(record[name]) for name in names])


def _over_seeds(about: Record, entries: list[dict[str, Any]], names: list[str]) -> Record:
    found: Record = {name: about.get(name) for name in names}
    found["seeds"] = len(entries)
    for measure in MEASURES:
        held = [entry[measure] for entry in entries if entry[measure]]
        if not held:
            found[measure] = None
            continue
        flat = [each | {"gain": each["gain"]["value"]} for each in held]
        numbers = [name for name, value in flat[0].items() if not isinstance(value, list)]
        means = {name: statistics.fmean(each[name] for each in flat) for name in numbers}
        told: dict[str, Any] = {
            name: round(100 * means[name], 3) for name in ("value", "low", "high")
        }
        spread = statistics.stdev([each["value"] for each in held]) if len(held) > 1 else None
        told["std"] = None if spread is None else round(100 * spread, 3)
        told["images"] = held[0]["images"]
        told |= {name: round(100 * means[name], 3) for name in ("every_draw", "gain")}
        if "forwards" in means:
            told |= {name: round(means[name], 1) for name in ("forwards", "backwards")}
        found[measure] = told
    return found


def varying(found: list[Record]) -> list[str]:
    """Return the columns that tell the records apart, in their order."""
    names = [name for name in found[0] if name not in MEASURES] if found else []
    return [name for name in names if len({str(record[name]) for record in found}) > 1]


def common(found: list[Record], names: list[str]) -> str:
    """Say what all records have in common, beside the columns ``names`` that vary."""
    shared = {
        name: value
        for name, value in found[0].items()
        if name not in (*names, *MEASURES) and value is not None
    }
    images = (found[0]["attacked"] or found[0]["clean"])["images"]
    said = ", ".join(f"{name} {told(value)}" for name, value in shared.items())
    return f"{said}; {images} images."


def share(measured: dict[str, Any] | None) -> str:
    """Write an accuracy: mean, standard deviation over seeds if there are several, interval.

    >>> share({"value": 50.0, "low": 40.4, "high": 59.6, "std": None})
    '50.0 (40.4-59.6)'
    """
    if measured is None:
        return ""
    spread = "" if measured["std"] is None else f" ± {measured['std']:.1f}"
    return f"{measured['value']:.1f}{spread} ({measured['low']:.1f}-{measured['high']:.1f})"


def interval(measured: Mapping[str, Any] | None) -> str:
    """Write what a summary holds as shares in [0, 1]: per cent, with the ends of the interval."""
    if measured is None:
        return ""
    return str(Interval(*(measured[name] for name in ("value", "low", "high", "images"))))
