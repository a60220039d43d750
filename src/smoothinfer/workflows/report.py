"""``smoothinfer report``: result folders as one page, Markdown, LaTeX and figures."""

from argparse import ArgumentParser, Namespace

from smoothinfer.reporting.page.sheet import NO_SHEET
from smoothinfer.reporting.report import write_report
from smoothinfer.runtime.terminal import Terminal


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folders",
        nargs="+",
        help="folders of evaluate, standard, attack, sweep, audit, certify, leaderboard, picture, "
        "train, demo or reproduce",
    )
    parser.add_argument(
        "--out",
        required=True,
        help="folder of index.html, sheet.html (one page to print), report.md, tables.tex",
    )
    parser.add_argument("--title", default="Results", help="of the page")


def run(options: Namespace) -> int:
    page = write_report(options.folders, options.out, options.title)
    console, sheet = Terminal(), page.with_name("sheet.html")
    console.print(str(page), markup=False)
    console.print(str(sheet) if sheet.exists() else f"no sheet.html: {NO_SHEET}", markup=False)
    return 0
