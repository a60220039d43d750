"""The leaderboard as Markdown, LaTeX, a figure and one self-contained page."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from smoothinfer.evaluation.judgement import AUTHORS, LEANS
from smoothinfer.evaluation.rows import CLEAN
from smoothinfer.reporting.board import Board
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.page import assemble_page
from smoothinfer.reporting.tables import LATEX_PACKAGES, Table
from smoothinfer.runtime.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TITLE = "Leaderboard of random defences"
NOTE = (
    "Accuracies in % with 95 % intervals over images. Worst case: the images whose vote is right "
    "without an attack and under every one. One pass and ten in a row stand under the attack that "
    f"hurts them most. Authors' protocol: {AUTHORS}, an attack on one frozen draw, then a fresh "
    "one; several published defences were evaluated so. The vote adds: accuracy of the vote minus "
    f"that of a pass, on the same images under the strongest attack; {LEANS}."
)
_SERIES = ("clean", "authors' protocol", "worst case")
_APART = 0.24  # between the accuracies of one model, in lines
_FIGURE = Markup(
    '<figure><img alt="accuracy of each model" src="data:image/png;base64,{}"></figure>'
)


def write_board(board: Board, out: Path, description: str = "") -> None:
    """Write ``leaderboard.md``, ``.tex``, ``.png`` and ``.html`` into ``out``."""
    picture, tables = out / "leaderboard.png", board.tables()
    board_figure(board, picture)
    parts = [f"# {_TITLE}", escape_markdown(" ".join(description.split())), NOTE]
    parts += [table.markdown() for table in tables]
    write_text(out / "leaderboard.md", "\n\n".join(part for part in parts if part) + "\n")
    latex = [
        table.latex(table.title, f"tab:leaderboard-{number}")
        for number, table in enumerate(tables, 1)
        if table.lines
    ]
    write_text(out / "leaderboard.tex", "\n".join([LATEX_PACKAGES, *latex]))
    write_text(out / "leaderboard.html", _page(board, tables, picture, description))


def _page(board: Board, tables: list[Table], picture: Path, description: str) -> str:
    ranking, attacks, claims = (
        [table.html(table.title, kind="wrap sortable", row_heads=True)] if table.lines else []
        for table in tables
    )
    content = base64.b64encode(picture.read_bytes()).decode()
    about = [Markup("<p>{}</p>").format(description)] if description else []
    sections = [
        ("ranking", "Ranking", [*about, *ranking, _FIGURE.format(content)]),
        ("attacks", "Model by attack", attacks),
        ("claims", "What is left of the claims", claims),
        ("verdicts", "Verdicts", [_verdict(card) for card in board.cards]),
    ]
    return assemble_page(_TITLE, NOTE, sections)


def _verdict(card: dict[str, Any]) -> Markup:
    lines = [card["verdict"], card.get("note"), card.get("audit") and f"Audit: {card['audit']}"]
    made = f"{card['model']}, {card.get('defence') or 'as it is'}; {card['passes']:,.0f} passes of "
    made += f"attacks and {card['seconds']:.3g} seconds an image; {card['samples']} passes a vote"
    text = Markup("").join(Markup("<p>{}</p>").format(line) for line in [*lines, made] if line)
    commands = Markup("").join(Markup("<pre>{}</pre>").format(line) for line in card["commands"])
    shown = Markup("<details><summary>{}</summary>{}{}</details>")
    return shown.format(card["name"], text, commands)


def board_figure(board: Board, path: Path) -> Figure:
    """Draw each model's accuracy clean, by its authors' protocol and in the worst case."""
    from matplotlib.figure import Figure

    from smoothinfer.reporting.figures import label_text, save_figure

    figure = Figure((8, 1.9 + 0.5 * len(board.cards)), layout="constrained")
    axes = figure.subplots()
    for at, label in enumerate(_SERIES):
        _draw_series(axes, board, label, at)
    names = [label_text(card["name"]) for card in board.cards]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)  # the most robust on top, half a line free at both ends
    axes.set_xlabel("accuracy of the vote, % (95 % over images)")
    axes.set_xlim(-2, 102)  # a marker at 0 or 100 is whole
    figure.suptitle(label_text(board.subject), fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    save_figure(figure, path)
    return figure


def _draw_series(axes: Any, board: Board, label: str, at: int) -> None:
    """Draw one accuracy of all models, beside the others of each model."""
    from smoothinfer.reporting.figures import COLOURS, MARKERS

    shift = _APART * (at - (len(_SERIES) - 1) / 2)
    points = [
        (place + shift, value)
        for place, card in enumerate(board.cards)
        if (value := _value(card, label)) is not None
    ]
    if not points:
        return
    places, values = zip(*points, strict=True)
    shown = [100 * value["value"] for value in values]
    errors = [
        [100 * (value["value"] - value["low"]) for value in values],
        [100 * (value["high"] - value["value"]) for value in values],
    ]
    style: Any = {"fmt": MARKERS[at], "color": COLOURS[at], "capsize": 2, "markersize": 5}
    axes.errorbar(shown, places, xerr=errors, label=label, **style)


def _value(card: dict[str, Any], label: str) -> dict[str, Any] | None:
    if label == "worst case":
        found: dict[str, Any] = card["worst case"]
        return found
    attack = CLEAN if label == "clean" else AUTHORS
    return next((each["vote"] for each in card["standings"] if each["attack"] == attack), None)
