"""The settings of the guide: ``make docs`` writes it to build/docs; no network is needed."""

import importlib.metadata
import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
os.environ.setdefault("OMP_NUM_THREADS", "2")

import reference_pages  # noqa: E402  # it lies beside this file

project, author = "smoothinfer", "the authors of smoothinfer"
copyright = "the authors of smoothinfer, MIT licence"  # Sphinx calls it so
release = importlib.metadata.version("smoothinfer")
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["reproduction", "trained", "report", "leaderboard", "tutorials/README.rst"]
exclude_patterns += ["tutorials/*", "notebooks/*"]
html_theme = "furo"
html_title = f"smoothinfer {release}"
html_extra_path = ["leaderboard/leaderboard.html"]
default_role = "py:obj"
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
suppress_warnings = ["myst.xref_missing", "config.cache"]  # links to files of the repository
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_use_ivar = True
sphinx_gallery_conf = {
    "examples_dirs": ["tutorials"],
    "gallery_dirs": ["gallery"],
    "filename_pattern": r"\.py",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "within_subsection_order": "FileNameSortKey",
    "min_reported_time": 1,
}


def setup(app: Sphinx) -> None:
    """Write the pages that are made from the code itself."""
    reference_pages.write_all(HERE / "reference" / "generated")
    app.connect("autodoc-process-docstring", _take_bars_literally)


def _take_bars_literally(
    app: Sphinx, what: str, name: str, part: object, how: object, lines: list[str]
) -> None:
    """In reStructuredText |x| is a substitution; in our formulas it is an absolute value."""
    del app, what, name, part, how
    lines[:] = [line if ">>>" in line else line.replace("|", "\\|") for line in lines]
