"""The sheet to print: verdict, bars, words; what a folder says stays text."""

import re
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from smoothinfer.reporting.collect import Source, collect
from smoothinfer.reporting.page import assemble_page
from smoothinfer.reporting.page.sheet import sheet_sections
from tests.reporting.test_glance import ONE, TWO, rows

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = rows("<script>alert(1)</script> $\\frac{$", {"none": [1, 1, 1, 0], "apgd": [1, 0, 0, 0]})


def page(*tables):
    sources = [Source(name=f"s{at}", path=f"s{at}", rows=t) for at, t in enumerate(tables)]
    return assemble_page("Results", "", sheet_sections(sources), links=False)


def audit_of(model, fired):
    half = {"value": 0.5, "low": 0.4, "high": 0.6, "images": 9}
    verdict = "Not to be relied on: check 11 fired." if fired else "No check fired."
    about = {"model": model, "verdict": verdict, "fired": fired, "findings": []}
    return Source(name=f"a-{model}", path="a", audit=about | {"clean": half, "attacked": half})


def sheet_of(*sources):
    return assemble_page("Results", "", sheet_sections(sources), links=False)


def test_the_sheet_says_which_model_keeps_most_and_shows_both():
    text = page(ONE, TWO)
    assert "two is right on 100.0 % of the clean images" in text
    assert re.search(r'<img alt="two: clean 100.0 .*; one: clean 75.0', text)
    assert text.index('<th scope="row">two') < text.index('<th scope="row">one')


def test_what_is_proved_stands_in_the_verdict():
    half = {"value": 0.5, "low": 0.4, "high": 0.6, "images": 9}
    accuracies = [{"radius": at / 10, **half} for at in range(20)]
    certified = {"images": 9, "abstained": 1, "certified accuracy": accuracies}
    certified["settings"] = {"model": "folder/net", "data": "folder/pictures"}
    sections = sheet_sections([Source(name="a", path="a", certified=certified)])
    text = assemble_page("Results", "", sections)
    assert "net is right on 50.0 (40.0-60.0) % of 9 images" in text
    assert "no change up to L2 radius 0.5 alters" in text
    assert text.count("<tr>") <= 7  # of 20 radii


def test_where_nothing_is_proved_the_verdict_says_so():
    none = {"radius": 0.5, "value": 0.0, "low": 0.0, "high": 0.161, "images": 20}
    certified = {"images": 20, "abstained": 1, "certified accuracy": [none]}
    certified["settings"] = {"model": "net", "data": "pictures"}
    text = sheet_of(Source(name="a", path="a", certified=certified))
    assert "For none of 20 images is it proved that net is right and stays so" in text
    assert "alters the answer there" not in text


def test_an_alarm_of_an_audit_stands_first_in_the_verdict():
    source = Source(name="rows", path="rows", rows=ONE)
    text = sheet_of(source, audit_of("calm", []), audit_of("loud", [11]))
    alarm = text.index('<p class="alarm"><strong>Audit of loud: Not to be relied on')
    assert alarm < text.index("Audit of calm") < text.index("one is right on")
    assert "Audit of loud" in sheet_of(audit_of("loud", [11]))  # alone too


def test_all_models_stand_in_a_table_or_are_said_to_be_left_out():
    other = rows("other", {"none": [1] * 4, "nattack": [1] * 4})
    clean = rows("never attacked", {"none": [1] * 4})
    text = page(ONE, other, clean)
    for name in ("one", "other"):
        assert f'<th scope="row">{name}' in text
    assert "Left out: never attacked of s2, which was not measured both" in text
    many = [rows(f"m{n}", {"none": [1] * 4, "apgd": [1, 0, 0, 0]}) for n in range(20)]
    text = page(*many, other)
    assert '<th scope="row">other' in text  # the best of every group has room
    assert text.count('<th scope="row">') == 8
    assert "Left out: for room, m7" in text
    assert "<p>13 more in index.html.</p>" in text
    assert "and 7 more" in text
    board = collect(Path("docs/leaderboard"))
    names = [card["name"] for card in board.board.cards]
    text = sheet_of(board, Source(name="rows", path="rows", rows=ONE))
    assert '<th scope="row">one' in text
    assert all(name in text for name in names[:3])


def test_further_settings_of_a_model_are_left_out_before_the_last_line_of_another():
    tables = []
    for seed in range(9):  # all better than the other model
        table = rows("many", {"none": [1] * 4, "apgd": [1, 1, 1, 0]})
        tables.append(table.append_column("sigma", pa.array([seed / 10] * len(table))))
    weak = rows("weak", {"none": [1] * 4, "apgd": [0] * 4})
    text = page(pa.concat_tables(tables), weak)
    assert '<th scope="row">weak' in text
    assert text.count('<th scope="row">') == 8
    assert "<p>2 more in index.html.</p>" in text


def test_exactly_the_words_that_the_page_shows_are_explained():
    half = {"value": 0.5, "low": 0.4, "high": 0.6, "images": 9}
    certified = {"images": 9, "abstained": 1, "sigma": 0.5, "note": "floats are no real numbers"}
    certified["certified accuracy"] = [{"radius": 0.5, **half}]
    text = sheet_of(Source(name="a", path="a", certified=certified))
    for word in ("Abstained", "Sigma", "L2 radius", "Certified accuracy"):
        assert f"<li><strong>{word}</strong>" in text
    for word in ("Clean", "Worst case", "L-infinity radius", "Vote", "Audit"):
        assert f"<strong>{word}</strong>" not in text
    assert "Note: floats are no real numbers." in text
    table = ONE.append_column("radius", pa.array([0.15] * len(ONE)))
    text = page(table)
    for word in ("Clean", "Worst case", "L-infinity radius", "Vote"):
        assert f"<li><strong>{word}</strong>" in text
    assert "0.15 are 38.2 of them" in text  # grey levels
    for word in ("Abstained", "L2 radius", "people do not see"):
        assert word not in text
    assert "<nav" not in text


def test_names_stay_text():
    text = page(HOSTILE)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_without_comparison_or_certificates_there_is_no_sheet():
    assert sheet_sections([]) == []
    assert (
        sheet_sections([Source(name="a", path="a", rows=rows("a", {"none": [1, 1, 0, 1]}))]) == []
    )


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_ten_models_fit_on_one_page(tmp_path):
    tables = [
        rows(f"model number {n}", {"none": [1, 1, 1, 1], "apgd": [1, 0, 0, 0]}) for n in range(10)
    ]
    (tmp_path / "sheet.html").write_text(page(*map(pa.table, tables)))
    printed = tmp_path / "sheet.pdf"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--print-to-pdf={printed}"]
    subprocess.run([*command, str(tmp_path / "sheet.html")], check=True, capture_output=True)
    assert len(re.findall(rb"/Type /Page\b(?!s)", printed.read_bytes())) == 1
