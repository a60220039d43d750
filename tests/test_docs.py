"""What the documents show works as shown."""

import re
from pathlib import Path

import pytest
import torch

import smoothinfer as si
from smoothinfer.cards import read_card
from smoothinfer.checkpoints import find_checkpoint
from smoothinfer.cli import COMMANDS
from smoothinfer.recipes import recipe_from
from smoothinfer.reporting.result_tables import figures_table, gain_text
from tests.conftest import small_net

REGISTRIES = (si.RULES, si.NOISES, si.ATTACKS, si.LOSSES)


@pytest.fixture
def extended():
    """Run the examples of extending.md, then put the registries back."""
    before = [dict(registry) for registry in REGISTRIES]
    blocks = re.findall(r"```python\n(.*?)```", Path("docs/extending.md").read_text(), re.DOTALL)
    blocks = blocks[:4]  # the fifth needs transformers
    assert all(block.count("\n") <= 40 for block in blocks)
    exec("\n".join(blocks), {})
    yield
    for registry, kept in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(kept)


def test_extensions_work_by_name(extended, images, labels, tmp_path):
    net = si.NoisyModel(small_net(), inputs=si.NOISES["salt"](0.1)).eval()
    smooth = si.SmoothedClassifier(net, samples=8, rule="borda", seed=0)
    answer = smooth.predict(images, stop="exact")
    assert torch.equal(answer.labels, smooth.predict(images).labels)
    rows = si.evaluate(smooth, (images, labels), attack="random", ball=si.Linf(0.1))
    assert set(rows["attack"].to_pylist()) == {"none", "random"}
    recipe = recipe_from(
        {
            "model": {"name": "smallnet", "width": 4},
            "noise": {"inputs": "salt(share=0.05)"},
            "loss": {"name": "label_smoothed", "amount": 0.2},
            "epochs": 1,
            "crop": 0,
            "compile": "off",
            "validation": {"held_out": 50, "images": 50},
        }
    )
    history = si.train_run(recipe, si.load_data("digits", "train", 300), tmp_path)
    assert history.epochs[-1]["loss"] > 0


DOCUMENTS = ["README.md", "RESULTS.md", *sorted(map(str, Path("docs").glob("*.md")))]
DOCUMENTS += sorted(map(str, Path("docs").glob("results/*.md")))


def test_the_names_of_everything_are_listed():
    text = Path("docs/python.md").read_text()
    for name in (*si.RULES, *si.ATTACKS, *si.LOSSES, *si.STOPS, *si.DEFENCES):
        assert f"`{name}`" in text, name


def test_the_readme_is_short_and_names_every_command():
    text = Path("README.md").read_text()
    assert text.count("\n") <= 120
    for command in set(COMMANDS) - {"attack", "picture", "publish"}:
        assert f"`smoothinfer {command}" in text, command


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_recipes_in_documents_are_there(document):
    path = Path(document)
    text = path.read_text()
    for recipe in re.findall(r"smoothinfer train ([^\sA-Z]+\.yaml)", text):
        assert Path("recipes", recipe).is_file(), recipe
    for link in re.findall(r"\]\(((?!http|gallery/)[^)#]+)(?:#[^)]*)?\)", text):  # it is built
        assert (path.parent / link).exists(), link


def test_the_lines_of_the_readme_run(images, labels, capsys):
    code = re.search(r"```python\n(.*?)```", Path("README.md").read_text(), re.DOTALL)[1]
    exec(code, {"network": small_net().eval(), "images": images, "labels": labels})
    assert capsys.readouterr().out


def intervals(text):
    """Return the accuracies in a Markdown table, as (value, low, high) by line."""
    found = [re.findall(r"([\d.]+) \(([\d.]+)-([\d.]+)\)", line) for line in text.splitlines()]
    return [[tuple(map(float, each)) for each in line] for line in found if line]


def test_the_readme_quotes_the_cards_of_its_models():
    text = Path("README.md").read_text()
    table = text[text.index("| network |") : text.index("All 10,000 test images")]
    quoted = re.findall(r"[\d.]+ \([\d.]+-[\d.]+\)", table)
    names = "cni-w-resnet20-cifar10", "adversarial-resnet20-cifar10"
    cards = [read_card(find_checkpoint(name))["figures"] for name in names]
    printed = "".join(figures_table(each).markdown() for each in cards)
    assert len(quoted) == 6
    assert all(each in printed for each in quoted)
    gains = [gain_text(figure[part]) for figure in cards[0] for part in ("clean", "attacked")]
    assert all(each in gains for each in re.findall(r"[+-][\d.]+ \([^)]* to [^)]*\)", table))


@pytest.mark.slow
def test_the_demo_prints_the_table_of_the_readme(tmp_path):
    """Another processor trains another net: the intervals of both must meet."""
    from smoothinfer.reporting.collect import collect
    from smoothinfer.workflows.demo import run_demo

    text = Path("README.md").read_text()
    shown = intervals(text[text.index("| passes of a vote |") : text.index("With a network of")])
    run_demo(tmp_path)
    assert collect(tmp_path).rows is not None  # the report takes its folder
    made = (tmp_path / "report.md").read_text().splitlines()
    lines = [next(x for x in made if f"| prediction | {n} |" in x) for n in (1, 64, 512)]
    for quoted, printed in zip(shown, intervals("\n".join(lines)), strict=True):
        for (_, low, high), (_, least, most) in zip(quoted, printed, strict=True):
            assert low <= most
            assert least <= high


def test_the_page_on_defences_shows_the_tables_of_the_leaderboard():
    page = Path("docs/results/defences.md").read_text()
    board = Path("docs/leaderboard/leaderboard.md").read_text()
    for table in re.findall(r"(?:^\|.*\n)+", board, re.MULTILINE)[:2]:
        assert table in page
