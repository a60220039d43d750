"""What made a row: a version of the package, its very code, a computer."""

from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from smoothinfer.evaluation.origins import library_digest
from smoothinfer.runtime.provenance import computer

MADE_BY = "made_by"  # name of a list of makers in summaries and in metadata of rows
Maker = dict[str, Any]
_UNKNOWN = "unknown"  # rows of before say less


def maker() -> dict[str, str]:
    """Return version, digest of the package's files, and computer, as shards keep them.

    >>> sorted(maker())
    ['code', 'computer', 'version']
    """
    code = library_digest("smoothinfer")[:12]
    return {"version": version("smoothinfer"), "code": code, "computer": computer()}


def count_makers(about: Iterable[Mapping[str, str]]) -> list[Maker]:
    """Return each maker that the metadata of shards name, with the number of its shards.

    >>> count_makers([{"version": "1", "code": "a", "computer": "x"}, {"computer": "y"}])[0]
    {'version': '1', 'code': 'a', 'computer': 'x', 'units': 1}
    """
    names = ("version", "code", "computer")
    counts = Counter(tuple(each.get(name, _UNKNOWN) for name in names) for each in about)
    return [dict(zip(names, key, strict=True)) | {"units": n} for key, n in sorted(counts.items())]


def maker_text(made_by: Mapping[str, Any]) -> str:
    """Write a maker of `count_makers` as text.

    >>> maker_text({"version": "0.1", "code": "1a2b", "computer": "torch 2, x86"})
    'smoothinfer 0.1 (code 1a2b), torch 2, x86'
    """
    return f"smoothinfer {made_by['version']} (code {made_by['code']}), {made_by['computer']}"
