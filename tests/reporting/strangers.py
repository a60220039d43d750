"""A small result folder with every file that a report reads, and ways to tamper with it."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
from matplotlib.figure import Figure

from smoothinfer.evaluation.store import write_table

INTERVAL = {"value": 0.5, "low": 0.25, "high": 0.75, "images": 4}
SETTINGS = {"command": "smoothinfer evaluate", "computers": ["torch"], "seed": 0, "nested": [{}]}
FINDING = {"number": 1, "name": "gradients", "state": "clear", "measured": "0 %"}
FINDING |= {"verdict": "fine", "threshold": "any", "procedure": "look"}
FILES = {
    "audit": {
        "model": "net",
        "verdict": "Nothing fired.",
        "fired": [1],
        "clean": INTERVAL,
        "attacked": INTERVAL,
        "findings": [FINDING, FINDING | {"state": "alarm"}],
        "about": {"direct": "PGD", "ball": "Linf", "samples": 8, "images": 4},
        "settings": SETTINGS,
    },
    "certified": {
        "settings": SETTINGS,
        "images": 4,
        "abstained": 1,
        "average radius": 0.25,
        "certified accuracy": [{"radius": 0.5, **INTERVAL}],
    },
    "settings": SETTINGS,
    "summary": {**SETTINGS, "data": {"classes": ["cat", "dog"]}, "versions": {"torch": "2"}},
    "experiment": {
        "title": "Table 1",
        "description": "a table",
        "heads": ["", "ours"],
        "lines": [["net", "50.0"]],
        "notes": ["a note"],
        "figures": ["1.png"],
        "command": "",
    },
    "curve": {"command": "smoothinfer picture", "computers": ["torch"]},
}


def table() -> pa.Table:
    """Rows of two images, clean and attacked, at two numbers of passes."""
    rows = []
    for attack in ("none", "fgsm"):
        for samples in (1, 4):
            for image in (0, 1):
                row = {"image": image, "label": image, "predicted": 0, "correct": image == 0}
                row |= {"share": 1.0, "hits": samples * (1 - image), "used": samples}
                row |= {"forwards": 1.0, "backwards": 1.0, "attack": attack, "samples": samples}
                rows.append(row | {"model": "net", "rule": "soft", "sigma": 0.1, "seed": 0})
    return pa.Table.from_pylist(rows)


def write_folder(folder: Path, change: Callable = lambda value, place: value) -> Path:
    """Write a result folder, every JSON file through ``change``; see `changed`."""
    for place in ("1.png", "curve.png", "examples/fgsm.png"):
        path = folder / ("figures" if place == "1.png" else "") / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Figure(figsize=(0.2, 0.2)).savefig(path)
    write_rows(folder, table())
    for name, content in FILES.items():
        if name != "summary":
            write_json(folder / f"{name}.json", changed(content, change))
    summary = json.loads((folder / "summary.json").read_text())
    write_json(folder / "summary.json", changed(summary, change))
    return folder


def keep_drawing(folder: Path) -> None:
    """Leave only the drawing and its JSON, which is read where nothing else has settings."""
    for path in folder.iterdir():
        if path.is_file() and path.stem != "curve":
            path.unlink()


def write_rows(folder: Path, rows: pa.Table) -> None:
    """Write ``rows`` and a summary that describes them."""
    digest = write_table(rows, folder / "table.parquet")
    write_json(folder / "summary.json", {**FILES["summary"], "table": digest})


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def changed(value, change, place=()):
    """``value`` with ``change(part, place)`` in place of each string and number in it."""
    if isinstance(value, dict):
        return {key: changed(each, change, (*place, key)) for key, each in value.items()}
    if isinstance(value, list):
        return [changed(each, change, (*place, at)) for at, each in enumerate(value)]
    return change(value, place)


class Skeleton(HTMLParser):
    """The elements of a page with the names of their attributes, and its handlers and addresses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.addresses: set[str] = set()
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, tuple(name for name, _ in attributes)))
        links = [text for name, text in attributes if name in ("href", "src")]
        self.addresses |= {text.partition(":")[0] for text in links if not text.startswith("#")}
        self.inside = tag

    def handle_data(self, data):
        if self.elements and self.cdata_elem:
            kept = self.styles if self.cdata_elem == "style" else self.scripts
            kept.append(data)
