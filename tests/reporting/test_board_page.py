"""The figure and the LaTeX of a leaderboard."""

import re
from pathlib import Path

from smoothinfer.reporting.board import read_board
from smoothinfer.reporting.board_page import board_figure, write_board

BOARD = read_board(Path("docs/leaderboard/cards"))


def test_the_accuracies_of_a_model_do_not_hide_each_other(tmp_path):
    figure = board_figure(BOARD, tmp_path / "b.png")
    (panel,) = figure.axes
    places = [place for line in panel.containers for place in line.lines[0].get_ydata()]
    assert len(set(places)) == len(places) > 2 * len(BOARD.cards)
    bottom, top = panel.get_ylim()
    assert bottom >= max(places) + 0.2
    assert top <= min(places) - 0.2
    low, high = panel.get_xlim()
    assert low < 0
    assert high > 100  # a marker at an end is whole
    assert figure.get_suptitle() == BOARD.subject
    assert "L-infinity radius 8/255, 1000 images" in BOARD.subject


def test_the_latex_of_a_leaderboard_is_ready_to_set(tmp_path):
    write_board(BOARD, tmp_path)
    text = (tmp_path / "leaderboard.tex").read_text()
    assert text.startswith("% needs \\usepackage{booktabs,graphicx,longtable}\n")
    captions = [line for line in text.splitlines() if line.startswith("\\caption{")]
    assert len(captions) == 3
    assert all(line[len("\\caption{")].isupper() for line in captions)
    assert "L-infinity radius 8/255" in captions[0]
    assert re.search(r"\$-\$\d\.\d \(\$-\$\d\.\d to \$-\$\d\.\d\)", text)  # minus signs
