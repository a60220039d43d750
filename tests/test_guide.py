"""The guide: every key, column and command is explained, and its tutorials run."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from smoothinfer.cli import COMMANDS
from smoothinfer.evaluation.rows import IMAGE_COLUMNS

DOCS = Path("docs")
TUTORIALS = sorted(DOCS.glob("tutorials/[0-9]*.py"))


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("reference_pages", DOCS / "reference_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_a_recipe_is_explained(pages):
    text = pages.recipes()
    lines = re.findall(r"^\| `(\w+)` \|([^|]*)\|(.*)\|$", text, re.MULTILINE)
    assert len(lines) > 60
    for key, _, meaning in lines:
        assert len(meaning.strip()) > 8, key


def test_every_command_and_public_name_stands_in_the_reference(pages):
    import smoothinfer as si

    text = pages.commands()
    for command in COMMANDS:
        assert f"## {command}\n" in text
    reference = pages.api()
    for name in si.__all__:
        assert f"smoothinfer.{name}" in reference


def test_every_column_is_explained():
    text = (DOCS / "reference" / "columns.md").read_text()
    for name in IMAGE_COLUMNS:
        assert f"`{name}`" in text, name
    for table in Path("checkpoints").glob("*.csv"):
        for name in table.read_text().partition("\n")[0].split(","):
            assert f"`{name}`" in text, name


def test_the_glossary_is_in_order():
    text = (DOCS / "reference" / "glossary.md").read_text()
    words = re.findall(r"^([^:#\n ].*)\n: ", text, re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(words, key=str.lower)


def test_the_guide_leads_to_every_page():
    index = (DOCS / "index.md").read_text()
    pages = [*DOCS.glob("*.md"), *DOCS.glob("reference/*.md"), *DOCS.glob("results/*.md")]
    for page in pages:
        name = str(page.relative_to(DOCS).with_suffix(""))
        assert name == "index" or re.search(rf"^{name}$", index, re.MULTILINE), name


@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_its_tutorial(path):
    """Written by ``sphinx_gallery_py2jupyter``, without answers."""
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    script = (DOCS / "tutorials" / f"{path.stem}.py").read_text()
    for part in code:
        assert part.strip() in script or part.strip() == "%matplotlib inline"
    assert sum(len(part) for part in code) > 500
    assert not any(cell.get("outputs") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path):
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(DOCS.glob("notebooks/*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_runs_in_jupyter(path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": "."}}).execute()
    assert any(cell.get("outputs") for cell in notebook.cells if cell.cell_type == "code")
