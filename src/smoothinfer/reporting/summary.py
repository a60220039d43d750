"""The summary of rows: tables on the terminal, in files, and sheets of adversarial examples."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothinfer.evaluation.examples import ExampleExport, load_examples
from smoothinfer.evaluation.makers import MADE_BY, Maker, maker_text
from smoothinfer.evaluation.rows import Rows, summarise
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.store import write_table
from smoothinfer.evaluation.subject import subject_text
from smoothinfer.reporting.best_settings import best_entries, setting_of
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.result_tables import accuracy_table, cost_table, gain_table
from smoothinfer.reporting.votes import first_votes, vote_text
from smoothinfer.runtime.files import write_json, write_text

if TYPE_CHECKING:
    from smoothinfer.runtime.terminal import Terminal

_LINES = 20  # of a table on the terminal
_SHEET = 10  # images in the picture of an attack
_INTERVAL = "95 % (Wilson) over images, noise fixed by the seed"


def write_summary(rows: Rows, runner: Runner, out: Path, settings: dict[str, Any]) -> None:
    """Write ``table.parquet``, ``table.md``, ``summary.json`` and ``costs.json`` into ``out``."""
    seconds, entries = runner.store.seconds(runner.works), summarise(rows)
    made_by = runner.store.makers(runner.works)
    summary = {
        **{name: value for name, value in settings.items() if name != "versions"},  # today's
        "interval": _INTERVAL,
        "settings": entries,
        "computers": sorted({each["computer"] for each in made_by}),
        MADE_BY: made_by,
        "table": write_table(rows, out / "table.parquet"),
    }
    write_json(out / "summary.json", summary)
    tables = [accuracy_table(entries), gain_table(entries), cost_table(entries, seconds)]
    about = escape_markdown(subject_text(entries, radius_by_default(settings)))
    parts = [f"{about}\n", *(table.markdown() for table in tables), _made_by_markdown(made_by)]
    write_text(out / "table.md", "\n".join(parts))
    costs = [json.loads(setting) | {"seconds": spent} for setting, spent in seconds.items()]
    write_json(out / "costs.json", {"seconds per image": costs})


def radius_by_default(settings: Mapping[str, Any]) -> bool:
    """Return whether the user of a command left the radius to it; recipes name theirs."""
    asked = settings.get("asked") or {}
    return "model" in asked and asked.get("radius") is None


def _made_by_markdown(made_by: Sequence[Maker]) -> str:
    """Return a line for each version and computer that made some of the rows."""
    texts = (escape_markdown(maker_text(each)) for each in made_by)
    lines = (f"- {text}: {each['units']} units" for text, each in zip(texts, made_by, strict=True))
    return "\n".join(["Rows were made by", "", *lines, ""])


def print_summary(
    console: Terminal, rows: Rows, runner: Runner, out: Path, settings: Mapping[str, Any]
) -> None:
    """Print the accuracies, the gain of the vote and the cost of the attacks.

    Of many settings the best are printed; the tables of all are in ``table.md``. Where several
    versions or computers made the rows, a line names them.
    """
    entries = summarise(rows)
    console.print(subject_text(entries, radius_by_default(settings)))
    best, title = best_entries(entries, _LINES), "Accuracy, % (95 % interval)"
    shown, every = (len(set(map(setting_of, each))) for each in (best, entries))
    if shown < every:
        title += f": the best {shown} of {every} settings, by what the strongest attack leaves"
    accuracy_table(best, title, entries).print(console, gaps=shown == every)
    tables = gain_table(entries), cost_table(entries, runner.store.seconds(runner.works))
    for table in tables:
        if len(table.lines) <= _LINES:
            table.print(console)
    if shown < every or any(len(table.lines) > _LINES for table in tables):
        console.print(f"the tables of all {every} settings are in {out / 'table.md'}")
    made_by = sorted({maker_text(each) for each in runner.store.makers(runner.works)})
    if len(made_by) > 1:
        console.print(f"note: rows were made by {'; '.join(made_by)}", markup=False)
    console.print(f"rows in {out / 'rows'}, summary in {out / 'summary.json'}")


def draw_examples(export: ExampleExport, rows: Rows, classes: Sequence[str]) -> None:
    """Draw a sheet for each attack: images, their votes, and the names of their classes."""
    from smoothinfer.reporting.image_figures import example_sheet

    clean, *attacked = first_votes(rows, _SHEET).items()
    for attack, votes in attacked:
        path = export.path(attack)
        if not path.exists():
            continue
        found = load_examples(path)
        labels = found["labels"][:_SHEET].tolist()
        captions = [
            [vote_text(part.get(k), classes) for k in range(len(labels))]
            for part in (clean[1], votes)
        ]
        names = [f"is {classes[label]}" for label in labels]
        shown = found["images"][:_SHEET], found["adversarial"][:_SHEET]
        example_sheet(*shown, [*captions, names], path.with_suffix(".png"), attack)
