"""Reports: everything that was measured, from folders that are whole."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import smoothinfer as si
from smoothinfer.evaluation.store import write_table
from smoothinfer.numerics.statistics import Interval, proportion
from smoothinfer.reporting.collect import accuracy_text, collect, common_text, records, varying
from smoothinfer.reporting.escaping import escape_markdown
from smoothinfer.reporting.glance import at_a_glance
from smoothinfer.reporting.report import write_report
from smoothinfer.reporting.result_tables import certified_table
from smoothinfer.runtime.files import write_json
from smoothinfer.workflows.sweep import run_sweep
from tests.conftest import sweep_recipe


def test_a_report_holds_every_figure(results, page):
    text = page.read_text()
    found = records(collect(results / "sweep").rows)
    for record in found:
        assert accuracy_text(record["attacked"]) in text
    markdown = (page.parent / "report.md").read_text()
    assert all(accuracy_text(record["clean"]) in markdown for record in found)
    assert "**Audit:**" in markdown
    assert len(list((page.parent / "figures").glob("*.svg"))) == 4  # three sigmas, and sigma itself
    for name in re.findall(r"\(figures/(.*?)\)", markdown):
        assert (page.parent / "figures" / name).stat().st_size > 1000


def test_models_at_a_glance_stand_in_every_form(results, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(results / "sweep", tmp_path / name)
    out = write_report([tmp_path / "one", tmp_path / "two"], tmp_path / "out").parent
    _, tables = at_a_glance({name: collect(tmp_path / name).rows for name in ("one", "two")})
    markdown, latex = ((out / name).read_text() for name in ("report.md", "tables.tex"))
    assert tables
    for number, table in enumerate(tables, start=1):
        assert replace(table, title="").markdown() in markdown
        assert table.latex(f"At a glance. {table.title}", f"tab:at-a-glance-{number}") in latex
        assert table.html(table.title, row_heads=True) in (out / "index.html").read_text()


def test_a_folder_of_parts_is_reported_whole(results, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(results / "sweep", tmp_path / "table9" / name)
    text = write_report([tmp_path / "table9"], tmp_path / "out").read_text()
    assert "<h3>table9/one</h3>" in text
    assert "<h3>table9/two</h3>" in text


def test_a_leaderboard_and_certificates_are_reported_in_every_form(results, tmp_path):
    board = Path("docs/leaderboard")
    page = write_report([board, results / "certified"], tmp_path)
    best = collect(board).board.cards[0]
    for name in ("index.html", "report.md", "tables.tex"):
        text = (tmp_path / name).read_text()
        assert best["name"] in text
        assert f"{100 * best['worst case']['value']:.1f}" in text
    assert "certified accuracy" in (tmp_path / "tables.tex").read_text()
    assert 'id="leaderboard"' in page.read_text()


def test_names_stay_as_they_are_and_every_folder_says_how_to_repeat_it(results, tmp_path):
    board = Path("docs/leaderboard")
    write_report([results / "certified", results / "audit", board], tmp_path)
    parts = re.split("^## ", (tmp_path / "report.md").read_text(), flags=re.MULTILINE)[1:]
    board_commands = collect(board).board.cards[0]["commands"]
    assert all(command in parts[2] for command in board_commands)
    assert "\nNote: certificates are statements about real numbers" in parts[0]
    certified = collect(results / "certified").certified
    certified["settings"] |= {"command": "smoothinfer certify this", "model": "run-gauss"}
    write_json(tmp_path / "again" / "certified.json", certified)
    write_report([tmp_path / "again"], tmp_path / "out")
    assert "smoothinfer certify this" in (tmp_path / "out" / "report.md").read_text()
    assert certified_table(certified).markdown().startswith("run-gauss, digits: ")
    assert escape_markdown("salt & pepper") == "salt & pepper"


def test_lines_of_a_table_keep_their_own_values(page):
    """The script sorts by them."""
    found = re.findall(r'<td[^>]*data-value="([\d.]+)"[^>]*>([\d.]+)', page.read_text())
    assert len(found) > 20
    assert all(f"{float(value):.1f}" == shown for value, shown in found)


def test_what_varies_beside_the_axis_gets_a_figure_each(tmp_path):
    torch.set_num_threads(1)
    options = {"limit": 10, "sigma": ["0.1"], "radius": ["0:0.2:0.1"], "samples": [1, 2]}
    run_sweep(sweep_recipe(**options), tmp_path / "radii")
    page = write_report([tmp_path / "radii"], tmp_path / "out")
    names = {path.name for path in (page.parent / "figures").glob("*.png")}
    assert len(names) == 3 + 1  # against n at each radius, and against the radius
    assert any("against_radius" in name for name in names)


@pytest.mark.parametrize("damage", ["table", "unfinished", "empty", "missing"])
def test_what_cannot_be_reported_is_refused(damage, results, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(results / "sweep", folder)
    messages = {
        "table": "is not the table",
        "unfinished": "is incomplete",
        "empty": "holds no rows",
    }
    if damage == "table":
        write_table(collect(folder).rows.slice(1), folder / "table.parquet")
    elif damage == "unfinished":
        (folder / "table.parquet").unlink()
    else:
        shutil.rmtree(folder)
        if damage == "empty":
            folder.mkdir()
    with pytest.raises(si.InputError, match=messages.get(damage, "no such folder")):
        write_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_standard_keeps_its_three_numbers(results, tmp_path):
    folder = tmp_path / "judged"
    shutil.copytree(results / "attack", folder)
    half, gain = proportion(9, 18).as_dict(), Interval(0.1, -0.1, 0.3, 18).as_dict()
    numbers = {"mean": half, "worst": half, "vote": half, "gain": gain}
    content = {"random": True, "verdict": "The vote is right on half.", "worst case": half}
    content["standings"] = {"none": numbers, "fgsm": numbers, "standard(budget='quick')": numbers}
    write_json(folder / "standing.json", content)
    write_report([folder], tmp_path / "out")
    for name in ("index.html", "report.md", "tables.tex"):
        text = (tmp_path / "out" / name).read_text()
        for shown in ("10 passes in a row", "vote adds", "worst case", "+10.0"):
            assert shown in text
    for name in ("index.html", "report.md"):
        assert "The vote is right on half." in (tmp_path / "out" / name).read_text()
    content["standings"]["fgsm"] = {"mean": half}
    write_json(folder / "standing.json", content)
    with pytest.raises(si.InputError, match="standings, fgsm lacks 'worst'"):
        write_report([folder], tmp_path / "out")


def test_a_number_of_seeds_reads_as_a_count(results):
    found = records(collect(results / "attack").rows)
    assert ", 1 seed; 10 images." in common_text(found, varying(found))


def test_a_part_of_a_leaderboard_is_refused_with_the_name_of_the_whole(results, tmp_path):
    shutil.copytree(Path("docs/leaderboard/cards"), tmp_path / "board" / "cards")
    part = tmp_path / "board" / "entries" / "one"
    shutil.copytree(results / "attack", part)
    (part / "table.parquet").unlink()
    with pytest.raises(si.InputError, match=f"part of a leaderboard: report {tmp_path / 'board'}"):
        write_report([part], tmp_path / "out")


def test_two_folders_of_one_name_are_told_apart_by_their_parents(results, tmp_path):
    for folder in ("runs/mine", "results/mine", "old/results/mine"):
        shutil.copytree(results / "attack", tmp_path / folder)
    folders = [tmp_path / "runs/mine", tmp_path / "results/mine", results / "attack"]
    write_report(folders, tmp_path / "out")
    heads = re.findall("^## (.*)$", (tmp_path / "out" / "report.md").read_text(), re.MULTILINE)
    assert heads == ["At a glance", "runs/mine", "results/mine", "attack"]
    write_report([*folders, tmp_path / "old/results/mine"], tmp_path / "out")
    assert "## old/results/mine" in (tmp_path / "out" / "report.md").read_text()


def test_a_folder_that_is_given_twice_is_refused(results, tmp_path):
    with pytest.raises(si.InputError, match="each folder once"):
        write_report([results / "attack", results / "attack"], tmp_path / "out")
