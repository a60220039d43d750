"""The sheet to print: verdict, bars, words; what a folder says stays text."""

import re
import shutil
import subprocess

import pyarrow as pa
import pytest

from smoothinfer.reporting.collect import Source
from smoothinfer.reporting.page import assemble_page
from smoothinfer.reporting.page.sheet import sheet_sections
from tests.reporting.test_glance import ONE, TWO, rows

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = rows("<script>alert(1)</script> $\\frac{$", {"none": [1, 1, 1, 0], "apgd": [1, 0, 0, 0]})


def page(*tables):
    sources = [Source(name=f"s{at}", path=f"s{at}", rows=t) for at, t in enumerate(tables)]
    return assemble_page("Results", "", sheet_sections(sources))


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
    assert "no change up to radius 0.5 alters" in text
    assert text.count("<tr>") <= 7  # of 20 radii


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
