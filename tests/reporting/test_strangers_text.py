"""The folder of a stranger: no name, number or sentence in it becomes code."""

import base64
import hashlib
import json
import re

import pyarrow as pa
import pytest
from markdown_it import MarkdownIt

import smoothinfer as si
from smoothinfer.reporting.collect import collect, records
from smoothinfer.reporting.page import page_of
from smoothinfer.reporting.report import write_report
from tests.reporting.strangers import (
    Skeleton,
    changed,
    keep_drawing,
    table,
    write_folder,
    write_json,
    write_rows,
)

HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", '" onmouseover="alert(1)',
    "' onmouseover='alert(1)", "[a](javascript:alert(1))", "![a](http://a.b/c)", "<!--", "-->",
    "</title></pre></td><svg/onload=alert(1)>", "{{7*7}}{0}%s", "a|b|c", "```\n# d", "`e`", "\\",
    "\\input{/etc/passwd}", "$\\frac{", "&lt;&#60;", "\x1b]0;owned\x07", "\u202edrow", "\ud800",
    "\r\n\r\n<b>", "\x00", "__proto__", "*f*", "\u2028",
)  # fmt: skip
PLANT = " ".join(HOSTILE)
FIXED = ("state", "figures", "table")  # words that code chooses between, and the names of files


def planted(text, place=()):
    fixed = any(key in FIXED for key in place)
    return f"{text}{PLANT}" if isinstance(text, str) and not fixed else text


def neutral(text, place=()):
    return planted(text, place).replace(PLANT, "x" * 9) if isinstance(text, str) else text


def rows_with(change):
    """The rows with hostile words, and a hostile column of hostile words."""
    hostile = table().to_pylist()
    for row in hostile:
        kept = ("none",)  # clean rows
        row |= {k: word(change(v)) for k, v in row.items() if isinstance(v, str) and v not in kept}
        row[word(change("odd"))] = word(change(str(row["samples"])))
    return pa.Table.from_pylist(hostile)


def word(text):
    return text.replace("\ud800", "")  # Parquet holds UTF-8


def hostile_folder(folder, change):
    write_folder(folder, change)
    summary = json.loads((folder / "summary.json").read_text())
    write_rows(folder, rows_with(change))
    summary["table"] = json.loads((folder / "summary.json").read_text())["table"]
    write_json(folder / "summary.json", summary)
    return folder


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """Reports of one folder with hostile words and of one with harmless ones in their place."""
    home = tmp_path_factory.mktemp("strangers")
    pages = []
    for name, change in (("hostile", planted), ("neutral", neutral)):
        folder = hostile_folder(home / name / "results", change)
        pages.append(write_report([folder], home / name / "report", change("a title")))
    return pages


def test_no_element_and_no_attribute_of_the_page_comes_from_a_string(reports):
    hostile, harmless = (Skeleton(page.read_text()) for page in reports)
    assert len(hostile.elements) > 100
    assert hostile.elements == harmless.elements
    assert hostile.addresses == {"data"}
    for _, names in hostile.elements:
        assert not any(name.startswith("on") for name in names)
    assert "alert(1)" in reports[0].read_text()  # it was shown


@pytest.mark.parametrize("name", ["audit", "certified", "summary", "settings", "curve"])
def test_no_number_of_json_becomes_an_element(name, tmp_path):
    plain = write_folder(tmp_path / "plain")
    if name == "curve":
        keep_drawing(plain)
    expected = Skeleton(page_of("a", [collect(plain)], {})).elements
    content = json.loads((plain / f"{name}.json").read_text())
    numbers = []
    changed(content, lambda value, place: numbers.append(place) if value != str(value) else None)
    assert numbers or name == "curve"
    for place in numbers:
        hostile = changed(content, lambda v, p, place=place: PLANT if p == place else v)
        write_json(plain / f"{name}.json", hostile)
        try:
            shown = page_of("a", [collect(plain)], {})
        except si.InputError as error:
            message = str(error)
            assert message.startswith(f"{plain / name}.json, ")
        else:
            assert Skeleton(shown).elements == expected, place


def test_numbers_of_rows_that_are_words_are_refused(tmp_path):
    folder = write_folder(tmp_path / "results")
    numbers = [name for name in table().column_names if name not in ("model", "attack", "rule")]
    for name in numbers:
        rows, at = table(), table().column_names.index(name)
        write_rows(folder, rows.set_column(at, name, pa.array([word(PLANT)] * len(rows))))
        with pytest.raises(si.InputError, match=f"table.parquet: column '{name}' cannot be of"):
            collect(folder)


def test_the_data_of_the_page_are_its_records(reports):
    for page in reports:
        data = json.loads(Skeleton(page.read_text()).scripts[0])
        found = records(collect(page.parents[1] / "results").rows)
        figures = ("clean", "attacked")
        for row, record in zip(data["rows"], found, strict=True):
            shown = dict(zip(data["names"], row, strict=True))
            assert {k: v for k, v in shown.items() if k not in (*figures, "source")} == {
                k: v for k, v in record.items() if k not in figures
            }
            for name in figures:
                four = record[name] and [record[name][k] for k in ("value", "low", "high", "std")]
                assert shown[name] == four


def test_the_policy_of_the_page_allows_its_own_script_and_style_alone(reports):
    text = reports[0].read_text()
    skeleton = Skeleton(text)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)
    hashes = set(re.findall(r"sha256-([^&]+)&#39;", policy))
    own = {*skeleton.styles, skeleton.scripts[1]}
    assert hashes == {base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in own}
    assert policy.startswith("default-src &#39;none&#39;; img-src data:;")
    assert "unsafe" not in policy
    assert len(skeleton.scripts) == 2
    assert len(skeleton.styles) == 1


def test_markdown_of_hostile_words_renders_as_that_of_harmless_ones(reports):
    found = []
    for page in reports:
        text = (page.parent / "report.md").read_text()
        assert text.replace("\n", "").isprintable()
        html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
        found.append(Skeleton(html))
    assert len(found[0].elements) > 50
    assert found[0].elements == found[1].elements
    assert not found[0].addresses & {"javascript", "http"}


def test_latex_of_hostile_words_holds_no_command_of_theirs(reports):
    hostile, harmless = ((page.parent / "tables.tex").read_text() for page in reports)
    commands = [sorted(set(re.findall(r"\\[A-Za-z]+", text))) for text in (hostile, harmless)]
    names = {"textbackslash", "textasciitilde", "textasciicircum", "textbar", "textless"}
    assert set(commands[0]) - set(commands[1]) <= {f"\\{n}" for n in names | {"textgreater"}}
    assert hostile.count("\n") == harmless.count("\n")
    assert [line.count(" & ") for line in hostile.splitlines()] == [
        line.count(" & ") for line in harmless.splitlines()
    ]
    assert not re.search(r"^[\[*]", hostile, re.MULTILINE)


def test_files_of_a_report_have_names_that_a_folder_can_hold(reports):
    for page in reports:
        names = [path.name for path in (page.parent / "figures").iterdir()]
        assert all(name.isprintable() and len(name.encode()) < 255 for name in names)
        shown = re.findall(r"\]\(figures/(\S+?)\)", (page.parent / "report.md").read_text())
        assert len(shown) == len(set(shown)) >= 3
