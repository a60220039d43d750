"""The page of a report: it works without a network, in any width."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def test_the_page_shows_each_command_and_the_votes_on_the_examples(page):
    text = page.read_text()
    for word in ("audit", "certify", "attack"):
        assert f"<pre>smoothinfer {word} tests.conftest:line --data digits" in text
    assert "the winner of the vote on" in text
    assert re.search(r"<td>0</td><td>0</td><td>\d [12]/2</td><td>\d [12]/2</td>", text)


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
const found = { errors: window.failed || [] };
const table = document.querySelector("table.sortable");
const last = table.tHead.rows[0].cells.length - 1;
const column = () => [...table.tBodies[0].rows].map((row) => Number(row.cells[last].dataset.value));
table.tHead.rows[0].cells[last].querySelector("button").click();
found.sorted = column().every((value, at, all) => !at || all[at - 1] <= value);
found.stated = table.tHead.rows[0].cells[last].getAttribute("aria-sort");
table.tHead.rows[0].cells[last].querySelector("button").click();
found.reversed = column().every((value, at, all) => !at || all[at - 1] >= value);
const paths = () => [...document.querySelectorAll("svg.chart path")].map((p) => p.outerHTML);
const before = paths();
found.curves = before.length;
const pick = (name, value) => {
  const select = document.querySelector(`select[name="${name}"]`);
  select.value = value;
  select.dispatchEvent(new Event("change"));
};
pick("measure", "clean");
found.changed = String(paths()) !== String(before);
pick("axis", "sigma");
found.hidden = document.querySelector('select[name="fix-sigma"]').parentElement.hidden;
found.named = [...document.querySelectorAll("select")].every((s) => s.getAttribute("aria-label"));
found.width = document.documentElement.scrollWidth <= window.innerWidth;
document.title = JSON.stringify(found);
</script></body>"""
    errors = "<head><script>window.failed = [];"
    errors += "window.onerror = (message) => window.failed.push(message);</script>"
    text = page.read_text().replace("<head>", errors).replace("</body>", probe)
    for script in (errors, probe):  # the policy of the page holds for the rest
        added = re.search("<script>(.*)</script>", script, re.DOTALL)
        allowed = base64.b64encode(hashlib.sha256(added[1].encode()).digest()).decode()
        text = text.replace("script-src ", f"script-src 'sha256-{allowed}' ")
    copy = tmp_path / "page.html"
    copy.write_text(text)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    command += ["--virtual-time-budget=5000", "--window-size=390,900"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", copy.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert 'data-ready="yes"' in done.stdout
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title is not None
    found = json.loads(title[1].replace("&quot;", '"'))
    assert found == {
        "errors": [], "sorted": True, "stated": "ascending", "reversed": True, "curves": 2,
        "changed": True, "hidden": True, "named": True, "width": True,
    }  # fmt: skip
