"""The one table: in Markdown, LaTeX and HTML."""

import re

import pytest
from rich.console import Console

from smoothinfer.reporting.collect import collect, records, records_table
from smoothinfer.reporting.tables import Table


def test_latex_is_escaped(results):
    found = records(collect(results / "sweep").rows)
    text = records_table(found).latex("50 % of a_b & c", "tab:x")
    assert r"50 \% of a\_b \& c" in text
    assert r"pgd(steps=2)" in text


TABLE = Table(["name", "accuracy"], [["a_b | <i>", "50.0 ± 0.1 (40.0-60.0)"]], "results", left=1)


def test_cells_are_escaped_wherever_they_are_written():
    markdown = TABLE.markdown()
    assert markdown.startswith("results:\n\n| name | accuracy |\n| :--- | ---: |\n")
    assert "| a_b &#124; &lt;i&gt; |" in markdown
    assert "a_b | &lt;i&gt;" in TABLE.html()
    latex = TABLE.latex("of all", "tab:all")
    assert r"a\_b" in latex
    assert r"50.0 $\pm$ 0.1 (40.0--60.0)" in latex


def test_a_minus_in_latex_is_one_and_no_hyphen():
    text = Table(["gain", "of"], [["-5.2 (-7.6 to +2.9)", "CNI-W"], ["9.7-1.2", "-0.1"]]).latex(
        "", "tab:n"
    )
    assert r"$-$5.2 ($-$7.6 to +2.9) & CNI-W \\" in text
    assert r"9.7--1.2 & $-$0.1 \\" in text


def test_a_table_that_no_page_holds_is_a_long_one():
    lines = [[str(number)] for number in range(46)]
    assert r"\begin{longtable}{r}" in Table(["n"], lines).latex("", "tab:n")
    assert r"\begin{tabular}{r}" in Table(["n"], lines[:45]).latex("", "tab:n")


def test_a_table_without_lines_is_left_out(capsys):
    empty = Table(["n"], [], "nothing")
    assert empty.markdown() == ""
    empty.print(Console())
    assert capsys.readouterr().out == ""


def test_a_table_is_printed_whole_on_the_terminal(capsys):
    lines = [["0", "[bold]"], ["0", "soft"], ["0.1", "soft"]]
    Table(["sigma", "rule"], lines, "of all").print(Console(), gaps=True)
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == ["of", "all"]
    assert [line for line in printed if line and line[0] in ("0", "0.1")] == lines


NUMBER = "61.0 (54.2-67.4)"
KEYS = ["model", "sigma", "radius", "rule", "samples", "seed"]
LINE = ["certified-gaussian-0.50-resnet20-cifar10", "0.06", "8/255", "prediction", "512", "0"]


@pytest.mark.parametrize("width", [20, 40, 80, 100, 160])
def test_no_number_is_cut_and_every_part_names_its_lines(width, capsys):
    attacks = ["clean", "PGD", "multitargeted-20 x8", "APGD-50x10"]
    table = Table([*KEYS, *attacks], [[*LINE, *[NUMBER] * 4]], left=len(KEYS))
    table.print(Console(width=width))
    printed = capsys.readouterr().out
    assert printed.count(NUMBER) == 4
    assert "…" not in printed
    assert all(name in printed for name in attacks)
    heads = [line.split() for line in printed.splitlines() if line.split()[:1] == ["model"]]
    assert all(line[: len(KEYS)] == KEYS for line in heads)
    if width >= 80:
        assert max(map(len, printed.splitlines())) <= max(width, 83)


def test_a_long_title_is_not_squeezed_into_its_table(capsys):
    title = f"{LINE[0]}, cifar10: 256 images, abstained on 43; Gaussian noise on the pixels"
    Table(["a", "b"], [["0", "1"]], title).print(Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith(f"{LINE[0]}, cifar10: 256 images")
    assert re.sub(r"\s+", " ", " ".join(lines)).strip().startswith(title)


def test_a_latex_table_that_is_wider_than_a_page_is_made_smaller():
    heads = [f"column {number}" for number in range(8)]
    wide, narrow = (
        Table(h, [["72.3 (69.4-75.0)"] * len(h)]).latex("c", "l") for h in (heads, "ab")
    )
    assert wide.count(r"\resizebox") == 1
    assert r"\resizebox" not in narrow
    assert wide.count("{") == wide.count("}")
