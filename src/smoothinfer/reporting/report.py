"""A report of result folders: Markdown, LaTeX, figures, and one page that needs no network."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from smoothinfer.errors import InputError
from smoothinfer.reporting.collect import (
    NOTE,
    Record,
    Source,
    collect,
    common_text,
    records,
    records_table,
    varying,
)
from smoothinfer.reporting.comparison import read_comparison
from smoothinfer.reporting.escaping import code_block, escape_markdown, paragraph
from smoothinfer.reporting.figures import draw_curves
from smoothinfer.reporting.glance import at_a_glance
from smoothinfer.reporting.members import check_inside
from smoothinfer.reporting.page import assemble_page, page_of
from smoothinfer.reporting.page.sheet import sheet_sections
from smoothinfer.reporting.result_tables import certified_table
from smoothinfer.reporting.standing_tables import standing_table
from smoothinfer.reporting.tables import LATEX_PACKAGES, Table, cell_text
from smoothinfer.runtime.files import write_bytes, write_text
from smoothinfer.runtime.printable import printable

_MOST_PICTURES = 24  # of one folder
_MOST_FIGURES = 6  # of one model along one axis
_LONGEST = 60  # letters of a part of a file's name


def write_report(folders: Sequence[str | Path], out: str | Path, title: str = "Results") -> Path:
    """Write ``index.html``, ``report.md``, ``tables.tex`` and ``figures/`` into ``out``.

    Beside them ``sheet.html`` is one page to print, for readers who decide.

    The folders may be a stranger's: nothing outside them is read, and nothing in them becomes code.
    A picture that is none is left out, with a warning.

    Args:
        folders: written by smoothinfer's commands; see `collect`. A folder that holds only
            folders of results, as of ``reproduce``, stands for those.
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
    sources = _told_apart([each for folder in folders for each in _sources(Path(folder))])
    found = {s.name: records(s.rows) for s in sources if s.rows is not None}
    for line in (line for source in sources for line in source.left_out):
        warnings.warn(f"left out of the report: {line}", stacklevel=2)
    taken: set[Path] = set()
    figures = _draw_figures(found, out / "figures", taken)
    for source in sources:
        copies = _copy_pictures(source, out / "figures", taken)
        figures.setdefault(source.name, []).extend(copies)
    write_text(out / "report.md", _markdown(title, sources, found, figures))
    write_text(out / "tables.tex", "\n".join([LATEX_PACKAGES, *_latex(sources, found)]))
    if sheet := sheet_sections(sources):
        write_text(out / "sheet.html", assemble_page(title, "", sheet, links=False))
    else:  # that of an earlier report would be of other folders
        (out / "sheet.html").unlink(missing_ok=True)
    write_text(out / "index.html", page_of(title, sources, found))
    return out / "index.html"


def _sources(folder: Path) -> list[Source]:
    """Read ``folder``, or the folders of results in it where it holds none itself."""
    inside = sorted(path.parent for path in folder.glob("*/table.parquet"))
    if not inside or (folder / "settings.json").exists():
        return [collect(folder)]
    for part in inside:
        check_inside(part, folder)
    parts = [collect(part) for part in inside]
    named = [replace(part, name=f"{printable(folder.name)}/{part.name}") for part in parts]
    return named if read_comparison(folder) is None else [collect(folder), *named]


def _told_apart(sources: Sequence[Source]) -> list[Source]:
    """Put the names of parent folders before the names that several folders share."""
    paths, names = [each.path.resolve() for each in sources], [each.name for each in sources]
    for depth in range(2, 1 + max(len(path.parts) for path in paths)):
        shared = {name for name in names if names.count(name) > 1}
        names = [
            printable("/".join(path.parts[-depth:])) if name in shared else name
            for path, name in zip(paths, names, strict=True)
        ]
    if len(set(names)) < len(names):
        raise InputError(f"a report takes each folder once, not {', '.join(names)}")
    return [replace(each, name=name) for each, name in zip(sources, names, strict=True)]


def _draw_figures(
    found: dict[str, list[Record]], folder: Path, taken: set[Path]
) -> dict[str, list[Path]]:
    """Draw accuracy against each column of numbers that varies; return the PNGs by source."""
    drawn: dict[str, list[Path]] = {}
    for name, part in found.items():
        drawn[name] = []
        for model in dict.fromkeys(str(record.get("model", name)) for record in part):
            own = [record for record in part if str(record.get("model", name)) == model]
            for stem, axis, shown in _views(own):
                path = _free_path(folder, (name, model, stem), taken)
                paths = [path, path.with_suffix(".svg")]
                draw_curves(shown, axis, "rule", paths, f"{model} {stem}")
                drawn[name].append(path)
    return drawn


def _views(own: list[Record]) -> Iterator[tuple[str, str, list[Record]]]:
    """Yield (description, axis, records) of the figures of one model.

    Every other column that varies, besides the attack and the rule, is fixed at one value in each
    figure; of many such figures, a few spread over them all are drawn.
    """
    most = max(record["samples"] for record in own)
    for axis in ("samples", "sigma", "radius"):
        part = own if axis == "samples" else [r for r in own if r["samples"] == most]
        part = [record for record in part if record.get(axis) is not None]
        if len({record[axis] for record in part}) < 2:
            continue
        fixed = [name for name in varying(part) if name not in (axis, "attack", "rule", "seeds")]
        groups: dict[tuple[str, ...], list[Record]] = {}
        for record in part:
            key = tuple(f"{name} {cell_text(record[name])}" for name in fixed)
            groups.setdefault(key, []).append(record)
        keys = list(groups)
        step = max(1, (len(keys) - 1) / (_MOST_FIGURES - 1))
        chosen = (keys[round(at * step)] for at in range(min(_MOST_FIGURES, len(keys))))
        for key in dict.fromkeys(chosen):
            at_most = [] if axis == "samples" else [f"n {most}"]
            yield ", ".join([f"against {axis}", *at_most, *key]), axis, groups[key]


def _latex(sources: Sequence[Source], found: dict[str, list[Record]]) -> Iterator[str]:
    """Yield the tables at a glance, then those of each source: records, boards, certificates."""
    for number, table in enumerate(_glance(sources)[1], start=1):
        yield table.latex(f"At a glance. {table.title}", f"tab:at-a-glance-{number}")
    for source in sources:
        name, label = source.name, f"tab:{_file_name(source.name)}"
        if name in found:
            part = found[name]
            caption = f"Accuracy in %, {name}; {common_text(part, varying(part))}"
            yield records_table(part).latex(caption, label)
        if source.standing is not None:
            table = standing_table(source.standing)
            yield table.latex(f"{name}: {table.title}", f"{label}-standing")
        for number, table in enumerate(_board_tables(source), start=1):
            yield table.latex(f"{name}: {table.title}", f"{label}-board-{number}")
        if source.certified is not None:
            table = certified_table(source.certified)
            caption = f"Certified accuracy in %, {name}; {table.title}"
            yield table.latex(caption, f"{label}-certified")


def _glance(sources: Sequence[Source]) -> tuple[str, list[Table]]:
    return at_a_glance({source.name: s for source in sources if (s := source.rows) is not None})


def _board_tables(source: Source) -> list[Table]:
    return [] if source.board is None else [t for t in source.board.tables() if t.lines]


def _markdown(
    title: str,
    sources: Sequence[Source],
    found: dict[str, list[Record]],
    figures: dict[str, list[Path]],
) -> str:
    parts = [f"# {escape_markdown(title)}"]
    said, tables = _glance(sources)
    if tables:
        parts += ["## At a glance", paragraph(said)]
        for table in tables:
            parts += [paragraph(table.title), replace(table, title="").markdown().rstrip()]
    for source in sources:
        parts.append(f"## {escape_markdown(source.name)}")
        if source.comparison is not None:
            parts += [f"**{escape_markdown(source.comparison.title)}**"]
            parts += [replace(source.comparison, figures=[]).markdown()]
        if source.audit is not None:
            parts.append(f"**Audit:** {escape_markdown(source.audit['verdict'])}")
        if source.standing is not None:
            parts += [paragraph(source.standing["verdict"])]
            parts += [standing_table(source.standing).markdown().rstrip()]
        if source.name in found:
            part = found[source.name]
            about = paragraph(common_text(part, varying(part)))
            parts += [about, records_table(part).markdown().rstrip()]
        parts += [table.markdown().rstrip() for table in _board_tables(source)]
        if source.certified is not None:
            parts.append(certified_table(source.certified).markdown().rstrip())
            note = source.certified.get("note")
            parts += [f"Note: {escape_markdown(note)}."] if note else []
        if computers := source.settings.get("computers"):
            parts.append(f"Computed with {escape_markdown('; '.join(computers))}.")
        if command := _commands(source):
            parts += ["To repeat it:", code_block(command, "bash")]
        shown = figures[source.name]
        parts += [f"![{escape_markdown(p.stem)}](figures/{quote(p.name)})" for p in shown]
        parts += [f"Left out: {escape_markdown(line)}" for line in source.left_out]
    return "\n\n".join([*parts, NOTE]) + "\n"


def _commands(source: Source) -> str:
    """Return the command lines that made the contents of a folder."""
    if source.board is None:
        return str(source.settings.get("command") or "")
    cards = source.board.cards
    return "\n".join(dict.fromkeys(line for card in cards for line in card["commands"]))


def _copy_pictures(source: Source, folder: Path, taken: set[Path]) -> list[Path]:
    """Copy the pictures of ``source`` beside those of the report."""
    copies = []
    for picture in source.pictures[:_MOST_PICTURES]:
        copies.append(_free_path(folder, (source.name, picture.stem), taken))
        write_bytes(copies[-1], picture.content)
    return copies


def _free_path(folder: Path, parts: Sequence[str], taken: set[Path]) -> Path:
    """Return the path of a picture named by ``parts``, and take it: no other one has its name."""
    stem = "-".join(map(_file_name, parts))
    path, number = folder / f"{stem}.png", 1
    while path in taken:  # as sheets of one attack at several sigmas
        path, number = folder / f"{stem}-{number}.png", number + 1
    taken.add(path)
    return path


def _file_name(name: str) -> str:
    """Return ``name`` as a part of a file's name; what is too long ends with a digest."""
    kept = "".join(letter if letter.isalnum() or letter in ".-=" else "_" for letter in name)
    if len(kept) <= _LONGEST:
        return kept
    return f"{kept[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
