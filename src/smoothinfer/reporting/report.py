"""``smoothinfer report``: Markdown, LaTeX, figures, and one page that needs no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from smoothinfer.errors import InputError
from smoothinfer.runtime.files import write_whole
from smoothinfer.reporting.collect import (
    NOTE,
    Record,
    Source,
    collect,
    common,
    interval,
    records,
    share,
    varying,
)
from smoothinfer.reporting.comparison import Comparison, read_comparison
from smoothinfer.reporting.curves import draw_curves
from smoothinfer.reporting.latex import latex_table
from smoothinfer.reporting.page import page_of
from smoothinfer.reporting.tables import told

_MOST = 24  # pictures of one folder
_FEW = 6  # figures of one model along one axis


def write_report(folders: Sequence[str | Path], out: str | Path, title: str = "Results") -> Path:
    """Write ``index.html``, ``report.md``, ``tables.tex`` and ``figures/`` into ``out``.

    Args:
        folders: what smoothinfer's commands wrote; see `collect`. A folder that holds only
            folders of results, as of `reproduce`, stands for those.
        out: folder of the report.
        title: of the page.

    Returns:
        The path of the page.

    Raises:
        InputError: a folder holds nothing to report, or is damaged; nothing is written then.
    """
    if not folders:
        raise InputError("a report needs at least one folder")
    out = Path(out)
    sources = [source for folder in folders for source in _sources(Path(folder))]
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise InputError(f"folders of a report need names of their own, not {', '.join(names)}")
    found = {s.name: records(s.rows) for s in sources if s.rows is not None}
    figures = _figures(found, out / "figures")
    copies = {source.name: _copied(source, out / "figures") for source in sources}
    _write(out / "report.md", _markdown(title, sources, found, figures, copies))
    tables = [
        latex_table(part, f"Accuracy in %, {name}", f"tab:{_plain(name)}")
        for name, part in found.items()
    ]
    _write(out / "tables.tex", "\n".join(["% needs \\usepackage{booktabs,longtable}", *tables]))
    _write(out / "index.html", page_of(title, sources, found))
    return out / "index.html"


def _sources(folder: Path) -> list[Source]:
    """Read ``folder``, or the folders of results in it where it holds none itself."""
    inside = sorted(path.parent for path in folder.glob("*/table.parquet"))
    if not inside or (folder / "settings.json").exists():
        return [collect(folder)]
    found = [collect(part) for part in inside]
    parts = [replace(source, name=f"{folder.name}/{source.name}") for source in found]
    return parts if read_comparison(folder) is None else [collect(folder), *parts]


def _figures(found: dict[str, list[Record]], folder: Path) -> dict[str, list[Path]]:
    """Draw what varies: accuracy against samples and against sigma; return the PNGs by source."""
    drawn: dict[str, list[Path]] = {}
    for name, part in found.items():
        drawn[name] = []
        for model in dict.fromkeys(str(record.get("model", name)) for record in part):
            own = [record for record in part if str(record.get("model", name)) == model]
            for stem, axis, shown in _views(own):
                path = folder / f"{_plain(name)}-{_plain(model)}-{_plain(stem)}.png"
                paths = [path, path.with_suffix(".svg")]
                draw_curves(shown, axis, "rule", paths, f"{model} {stem}")
                drawn[name].append(path)
    return drawn


def _views(own: list[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Yield (what is held fixed, axis, records) of the figures of one model.

    All that varies beside the axis, the attack and the rule is held fixed, in a figure each; of
    many such, a few spread over them all.
    """
    most = max(record["samples"] for record in own)
    for axis in ("samples", "sigma", "radius"):
        part = own if axis == "samples" else [r for r in own if r["samples"] == most]
        if len({record.get(axis) for record in part} - {None}) < 2:
            continue
        fixed = [name for name in varying(part) if name not in (axis, "attack", "rule", "seeds")]
        groups: dict[tuple[str, ...], list[Record]] = {}
        for record in part:
            key = tuple(f"{name} {told(record[name])}" for name in fixed)
            groups.setdefault(key, []).append(record)
        keys = list(groups)
        step = max(1, (len(keys) - 1) / (_FEW - 1))
        for key in dict.fromkeys(keys[round(at * step)] for at in range(min(_FEW, len(keys)))):
            at_most = [] if axis == "samples" else [f"n {most}"]
            yield ", ".join([f"against {axis}", *at_most, *key]), axis, groups[key]


def _markdown(
    title: str,
    sources: Sequence[Source],
    found: dict[str, list[Record]],
    figures: dict[str, list[Path]],
    copies: dict[str, list[Path]],
) -> str:
    lines = [f"# {title}", ""]
    for source in sources:
        lines += [f"## {source.name}", ""]
        if source.comparison is not None:
            lines += [f"**{source.comparison.title}**", "", _without_figures(source.comparison), ""]
        if source.audit is not None:
            lines += [f"**Audit:** {source.audit['verdict']}", ""]
        if source.name in found:
            part = found[source.name]
            lines += [common(part, varying(part)), "", *markdown_records(part), ""]
        if computers := source.settings.get("computers"):
            lines += [f"Computed with {'; '.join(computers)}.", ""]
        if command := source.settings.get("command"):
            lines += ["To repeat it:", "", "```bash", command, "```", ""]
        shown = [*figures.get(source.name, []), *copies[source.name]]
        lines += [f"![{p.stem}](figures/{p.name.replace(' ', '%20')})" for p in shown]
        lines.append("")
        if source.certified is not None:
            lines += ["| L2 radius | certified accuracy, % |", "| ---: | ---: |"]
            lines += [
                f"| {each['radius']:g} | {interval(each)} |"
                for each in source.certified["certified accuracy"]
            ]
            lines.append("")
    return "\n".join([*lines, NOTE, ""])


def _copied(source: Source, folder: Path) -> list[Path]:
    """Put the pictures of ``source`` beside those of the report."""
    copies = []
    for path in source.pictures[:_MOST]:
        copies.append(folder / f"{_plain(source.name)}-{_plain(path.stem)}.png")
        _write(copies[-1], path.read_bytes())
    return copies


def _without_figures(comparison: Comparison) -> str:
    return replace(comparison, figures=[]).markdown()


def markdown_records(found: list[Record]) -> list[str]:
    """Return the lines of a Markdown table of ``found``."""
    names = varying(found)
    heads = [*names, "clean", "attacked"]
    lines = [f"| {' | '.join(heads)} |", "| " + " | ".join(["---:"] * len(heads)) + " |"]
    for record in found:
        cells = [told(record[name]).replace("|", "/") for name in names]
        cells += [share(record[measure]) for measure in ("clean", "attacked")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in ".-=" else "_" for letter in name)


def _write(path: Path, content: str | bytes) -> None:
    held = content.encode() if isinstance(content, str) else content
    write_whole(path, lambda file: file.write(held))
