"""One self-contained page: records as data, drawn by a script of its own; no network.

Whatever is put into a `Markup` is escaped, unless it is one itself: no name, number or sentence of
a result folder becomes an element, an attribute or a script. The page's policy allows no script and
no style but its own, and no address but pictures within it.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from smoothinfer.reporting.collect import NOTE, Record, Source
from smoothinfer.reporting.page.sections import (
    REPEAT,
    audit_section,
    board_section,
    bytes_of,
    certificates_section,
    comparison_section,
    glance_section,
    pictures_section,
    records_section,
    settings_section,
    standing_section,
)
from smoothinfer.runtime.printable import printable

_BYTES = 800_000  # of pictures, so that the page stays below 2 MB
_PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body>
<h1>{title}</h1>
{links}{note}
<main>
{body}
</main>
<script type="application/json" id="data">{data}</script>
<script>{script}</script></body></html>
""")


def page_of(title: str, sources: Sequence[Source], found: dict[str, list[Record]]) -> str:
    """Return the HTML of a report.

    Args:
        title: of the page.
        sources: the contents of the folders.
        found: the records of each source that has rows.
    """
    every = [{"source": name, **record} for name, part in found.items() for record in part]
    names = list(dict.fromkeys(name for record in every for name in record))
    data = {"names": names, "rows": [[_short(record.get(n)) for n in names] for record in every]}
    sections = [
        ("glance", "At a glance", glance_section(sources)),
        ("standing", "Standard attack", [standing_section(s) for s in sources if s.standing]),
        ("leaderboard", "Leaderboard", [board_section(s) for s in sources if s.board]),
        (
            "comparisons",
            "Beside the paper",
            [comparison_section(s) for s in sources if s.comparison],
        ),
        ("verdicts", "Audit", [audit_section(s) for s in sources if s.audit]),
        ("curves-title", "Curves", [Markup('<div id="curves"></div>')] if _has_axis(every) else []),
        ("certificates", "Certificates", certificates_section(sources)),
        ("tables", "All settings", list(map(records_section, found, found.values()))),
        ("pictures", "Pictures", pictures_section(sources, _BYTES - bytes_of(sources))),
        ("repeat", "Repeat it", [REPEAT, *(settings_section(s) for s in sources)]),
    ]
    return assemble_page(title, NOTE, sections, data, folded=("tables", "pictures", "repeat"))


def _has_axis(records: Sequence[Record]) -> bool:
    """Say whether a number differs between records, so that a curve can be drawn along it.

    >>> _has_axis([{"samples": 1, "seeds": 1}, {"samples": 64, "seeds": 1}])
    True
    >>> _has_axis([{"model": "a", "samples": 64}, {"model": "b", "samples": 64}])
    False
    """
    for name in {name for record in records for name in record} - {"clean", "attacked", "seeds"}:
        held = [each for record in records if (each := record.get(name)) is not None]
        numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in held)
        if numbers and len(set(held)) > 1:
            return True
    return False


def _short(value: Any) -> Any:
    """Return a value of a record as the script needs it: of a figure, the four that it draws."""
    if not isinstance(value, dict):
        return value
    return [value[name] for name in ("value", "low", "high", "std")]


def assemble_page(
    title: str,
    note: str,
    sections: Sequence[tuple[str, str, list[Markup]]],
    data: Any = None,
    folded: Sequence[str] = (),
    links: bool = True,
) -> str:
    """Return a page of sections, each an id, a heading and its content; empty ones are left out.

    Args:
        title: of the page.
        note: how to read its figures.
        sections: in their order.
        data: records of the curves.
        folded: ids of sections that are closed at first, and left out in print.
        links: whether links to the sections stand above; a sheet of paper needs none.
    """
    shown = [section for section in sections if section[2]]
    style, script = _own("page.css"), _own("page.js")
    return _PAGE.format(
        policy=_policy(style, script),
        title=printable(title),
        style=style,
        links=_links(shown) if links else "",
        note=Markup("<p>{}</p>").format(note) if note else "",
        body=_lines(
            (_FOLDED if name in folded else _SECTION).format(name, head, _lines(content))
            for name, head, content in shown
        ),
        data=_embedded(data),
        script=script,
    )


def _links(sections: Sequence[tuple[str, str, list[Markup]]]) -> Markup:
    link = Markup('<a href="#{}">{}</a>')
    links = _lines(link.format(name, head) for name, head, _ in sections)
    return Markup('<nav aria-label="sections">{}</nav>\n').format(links)


def _own(name: str) -> Markup:
    """Return a style or script of the package."""
    text = files("smoothinfer.reporting.page").joinpath(name).read_text()
    return Markup(f"\n{text}")  # noqa: S704 - a file of ours


def _embedded(data: Any) -> Markup:
    """Return ``data`` as JSON for a script element."""
    # "</script" or "<!--" would change where the element ends.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    return Markup(text)  # noqa: S704 - there is no "<" in it


def _policy(style: str, script: str) -> str:
    """Return the policy of the page: what its browser may run and load."""
    styles, scripts = (
        base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()
        for each in (style, script)
    )
    allowed = f"img-src data:; style-src 'sha256-{styles}'; script-src 'sha256-{scripts}'"
    return f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"


def _lines(parts: Iterable[Markup]) -> Markup:
    return Markup("\n").join(parts)


_SECTION = Markup('<section><h2 id="{}">{}</h2>\n{}</section>')
_FOLDED = Markup('<details class="folded"><summary><h2 id="{}">{}</h2></summary>\n{}</details>')
