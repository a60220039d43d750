"""Reports: what was measured, on one page that works without a network, in any width."""

import json
import re
import shutil
import subprocess

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.evaluation.store import write_table
from smoothinfer.reporting.collect import collect, records, varying
from smoothinfer.reporting.latex import latex_table
from smoothinfer.reporting.report import write_report
from smoothinfer.reporting.result_tables import cost_table
from smoothinfer.workflows.sweep import run_sweep
from tests.test_sweep import recipe

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A sweep with an awkward name, an audit, certificates and adversarial examples."""
    folder = tmp_path_factory.mktemp("results")
    torch.set_num_threads(1)
    options = {"limit": 40, "sigma": ["0:0.1:0.05"], "samples": [1, 2, 4], "seeds": [0, 1]}
    models = {"</script><!--<script> & line_1": "tests.test_sweep:line"}
    run_sweep(recipe(models=models, **options), folder / "sweep")
    line = ["tests.test_sweep:line", "--data", "digits", "--limit", "10"]
    main(["audit", *line, "--quick", "--radius", "0.1", "--out", str(folder / "audit")])
    certify = ["certify", *line, "--sigma", "0.2", "--samples", "50"]
    main([*certify, "--out", str(folder / "certified")])
    attack = ["attack", *line, "--attack", "fgsm", "--sigma", "0.1", "--samples", "2"]
    main([*attack, "--out", str(folder / "attack")])
    return folder


@pytest.fixture(scope="module")
def page(results):
    folders = [results / name for name in ("sweep", "audit", "certified", "attack")]
    return write_report(folders, results / "report", "All of it")


def test_the_page_tells_each_command_and_how_the_examples_were_voted_on(page):
    text = page.read_text()
    for word in ("audit", "certify", "attack"):
        assert f"<pre>smoothinfer {word} tests.test_sweep:line --data digits" in text
    assert "what won the vote on" in text
    assert re.search(r"<td>0</td><td>0</td><td>\d [12]/2</td><td>\d [12]/2</td>", text)


def test_records_are_the_summary_over_seeds(results):
    summary = json.loads((results / "sweep" / "summary.json").read_text())["settings"]
    found = records(collect(results / "sweep").rows)
    assert len(found) == len(summary) // 2
    assert varying(found) == ["sigma", "attack", "rule", "samples"]
    one = found[0]
    about = {"sigma": one["sigma"], "attack": one["attack"], "rule": one["rule"]}
    same = [
        entry
        for entry in summary
        if about.items() <= entry["description"].items()
        and entry["description"]["samples"] == one["samples"]
    ]
    mean = sum(entry["attacked"]["value"] for entry in same) / 2
    assert len(same) == one["seeds"] == 2
    assert one["attacked"]["value"] == pytest.approx(100 * mean, abs=1e-3)
    gap = 100 * abs(same[0]["attacked"]["value"] - same[1]["attacked"]["value"])
    assert one["attacked"]["std"] == pytest.approx(gap / 2**0.5, abs=1e-3)


def test_a_report_holds_every_figure(results, page):
    text = page.read_text()
    found = records(collect(results / "sweep").rows)
    for record in found:
        assert share(record["attacked"]) in text
    markdown = (page.parent / "report.md").read_text()
    assert all(share(record["clean"]) in markdown for record in found)
    assert "**Audit:**" in markdown
    assert len(list((page.parent / "figures").glob("*.svg"))) == 4  # three sigmas, and sigma itself
    for name in re.findall(r"\(figures/(.*?)\)", markdown):
        assert (page.parent / "figures" / name).stat().st_size > 1000


def test_the_page_needs_no_network(page):
    text = page.read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#|data:)""", text)
    assert "@import" not in text
    assert "url(" not in text
    assert text.count("<script") == text.count("</script>") == 2  # whatever a model is called
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert all(f'id="{name}"' in text for name in re.findall(r'href="#([^"]+)"', text))
    assert 'lang="en"' in text
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*", text))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_page_works_in_a_browser(page, tmp_path):
    """It loads without an error; sorting, the choices and their keyboard names work."""
    probe = """
<script>
const told = { errors: window.failed || [] };
const table = document.querySelector("table.sortable");
const last = table.tHead.rows[0].cells.length - 1;
const column = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[last].dataset.value));
table.tHead.rows[0].cells[last].querySelector("button").click();
told.sorted = column().every((value, at, all) => !at || all[at - 1] <= value);
told.stated = table.tHead.rows[0].cells[last].getAttribute("aria-sort");
table.tHead.rows[0].cells[last].querySelector("button").click();
told.reversed = column().every((value, at, all) => !at || all[at - 1] >= value);
const paths = () => [...document.querySelectorAll("svg.chart path")].map((p) => p.outerHTML);
const before = paths();
told.curves = before.length;
const pick = (name, value) => {
  const select = document.querySelector(`select[name="${name}"]`);
  select.value = value;
  select.dispatchEvent(new Event("change"));
};
pick("measure", "clean");
told.changed = String(paths()) !== String(before);
pick("axis", "sigma");
told.hidden = document.querySelector('select[name="fix-sigma"]').parentElement.hidden;
told.named = [...document.querySelectorAll("select")].every((s) => s.getAttribute("aria-label"));
told.width = document.documentElement.scrollWidth <= window.innerWidth;
document.title = JSON.stringify(told);
</script></body>"""
    errors = "<head><script>window.failed = [];"
    errors += "window.onerror = (message) => window.failed.push(message);</script>"
    text = page.read_text().replace("<head>", errors).replace("</body>", probe)
    copy = tmp_path / "page.html"
    copy.write_text(text)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=5000", "--window-size=390,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 'data-ready="yes"' in done.stdout
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None
    told = json.loads(title[1].replace("&quot;", '"'))
    assert told == {
        "errors": [], "sorted": True, "stated": "ascending", "reversed": True, "curves": 2,
        "changed": True, "hidden": True, "named": True, "width": True,
    }  # fmt: skip


def test_a_folder_of_parts_is_reported_whole(results, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(results / "sweep", tmp_path / "table9" / name)
    text = write_report([tmp_path / "table9"], tmp_path / "out").read_text()
    assert "<h3>table9/one</h3>" in text
    assert "<h3>table9/two</h3>" in text


def test_settings_are_those_of_the_table(results, tmp_path):
    shutil.copytree(results / "sweep", tmp_path / "sweep")
    later = json.dumps({"sweep": {"radius": [0.3]}})
    (tmp_path / "sweep" / "settings.json").write_text(later)  # a run that did not end
    found = collect(tmp_path / "sweep")
    assert found.settings["asked"]["radius"] is None


def test_what_varies_beside_the_axis_gets_a_figure_each(tmp_path):
    torch.set_num_threads(1)
    options = {"limit": 10, "sigma": ["0.1"], "radius": ["0:0.2:0.1"], "samples": [1, 2]}
    run_sweep(recipe(**options), tmp_path / "radii")
    page = write_report([tmp_path / "radii"], tmp_path / "out")
    names = {path.name for path in (page.parent / "figures").glob("*.png")}
    assert len(names) == 3 + 1  # against n at each radius, and against the radius
    assert any("against_radius" in name for name in names)


def test_latex_is_escaped(results):
    text = latex_table(records(collect(results / "sweep").rows), "50 % of a_b & c", "tab:x")
    assert r"50 \% of a\_b \& c" in text
    assert r"pgd(steps=2)" in text


@pytest.mark.parametrize("damage", ["table", "unfinished", "empty", "missing"])
def test_what_cannot_be_reported_is_refused(damage, results, tmp_path):
    folder = tmp_path / "sweep"
    shutil.copytree(results / "sweep", folder)
    said = {"table": "is not the table", "unfinished": "not finished", "empty": "holds no rows"}
    if damage == "table":
        write_table(collect(folder).rows.slice(1), folder / "table.parquet")
    elif damage == "unfinished":
        (folder / "table.parquet").unlink()
    else:
        shutil.rmtree(folder)
        if damage == "empty":
            folder.mkdir()
    with pytest.raises(si.InputError, match=said.get(damage, "no such folder")):
        write_report([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_folders_of_one_name_are_refused(results, tmp_path):
    shutil.copytree(results / "attack", tmp_path / "attack")
    with pytest.raises(si.InputError, match="names of their own"):
        write_report([results / "attack", tmp_path / "attack"], tmp_path / "out")


def test_report_on_the_command_line(results, tmp_path, capsys):
    assert main(["report", str(results / "attack"), "--out", str(tmp_path)]) == 0
    assert (tmp_path / "index.html").exists()
    assert "data:image/png" in (tmp_path / "index.html").read_text()  # the sheet of examples


def entry(attack, right, **description):
    share = {"value": right, "low": right, "high": right, "images": 10}
    left = share | {"per_draw": 0.25, "every_draw": 0.125, "forwards": 7.0, "backwards": 1400.0}
    return {
        "description": {"attack": attack, "samples": 8, "rule": "soft", **description},
        "clean": None,
        "attacked": left | {"gain": {"value": 0.0, "low": 0.0, "high": 0.0}},
    }


def test_attacks_are_told_with_their_cost_the_strongest_last():
    told = cost_table([entry("apgd", 0.375), entry("pgd", 0.5)], {"pgd": 0.0034})
    assert told.heads[0] == "attack"  # one rule and no sigma: nothing else to tell
    assert [line[0] for line in told.lines] == ["pgd", "apgd"]
    assert told.lines[0][1:5] == ["1,400", "7", "3.4", "25.0"]
    assert told.lines[1][3] == ""  # its time is not known
    assert "| 37.5 (37.5-37.5) | 12.5 |" in told.markdown()


def test_one_attack_is_not_compared():
    assert cost_table([entry("pgd", 0.5)], {}).markdown() == ""


def test_settings_that_differ_are_told():
    entries = [entry("pgd", 0.5, sigma=0.06), entry("pgd", 0.75, sigma=0.0)]
    assert [line[:2] for line in cost_table(entries, {}).lines] == [["0", "pgd"], ["0.06", "pgd"]]
