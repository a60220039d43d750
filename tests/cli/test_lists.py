"""The lists: recipes, attacks, models, data, a line each, and as Markdown."""

import numpy as np
import pytest

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.shipped_files import list_shipped
from smoothinfer.workflows.attacks import ABOUT


def said(capsys, *words):
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_every_attack_has_a_line_and_an_explanation(capsys):
    assert list(ABOUT) == list(si.ATTACKS)
    found = said(capsys, "attacks")
    for name, line in ABOUT.items():
        assert sum(row.split()[:1] == [name] for row in found.splitlines()) == 1
        assert line in found
        explained = said(capsys, "attacks", name)
        assert explained.startswith(f"{name}(")
        assert len(explained) > 200
    assert all(len(line) <= 80 for line in found.splitlines())
    assert main(["attacks", "nonsense"]) == 2


def test_every_recipe_has_one_line(capsys):
    found = said(capsys, "recipes").splitlines()
    for name in list_shipped("recipes"):
        assert sum(row.split()[:1] == [name] for row in found) == 1
    assert all(len(line) <= 80 and "…" not in line for line in found)


@pytest.mark.parametrize("command", ["attacks", "recipes", "models", "data digits"])
def test_lists_are_written_as_markdown(command, capsys):
    found = said(capsys, *command.split(), "--format", "markdown")
    assert "| :--- |" in found


def test_data_are_described_with_a_sheet(tmp_path, capsys):
    found = said(capsys, "data", "digits", "--out", str(tmp_path))
    assert "1,437" in found
    assert "360" in found
    assert (tmp_path / "train.png").stat().st_size > 5000


@pytest.fixture
def only_training(tmp_path):
    """Sixty images of three classes without a test split."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 8, 8, 1), dtype=np.uint8), np.arange(60) % 3
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=images, y_train=labels)
    return str(path)


def test_data_without_a_test_split_are_split_by_a_seed(only_training, capsys):
    parts = {split: si.load_data(f"{only_training}#test=0.2", split) for split in ("train", "test")}
    assert [len(part) for part in parts.values()] == [48, 12]
    assert parts["test"].labels.bincount().tolist() == [4, 4, 4]
    rows = {bytes(image.numpy()) for part in parts.values() for image in part.pixels}
    assert len(rows) == 60
    other = si.load_data(f"{only_training}#test=0.2,seed=1", "test")
    assert other.hash != parts["test"].hash
    assert other.hash == si.load_data(f"{only_training}#test=.2,seed=1", "test").hash
    told = said(capsys, "data", only_training)
    assert "no array 'x_test'" in told
    assert f"{only_training}#test=0.2 as DATA" in " ".join(told.split())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("digits#test=0.2", "has a test split: leave #test=0.2 out"),
        ("{}#test=2", "write #test=0.2"),
        ("{}#test=0.0", "write #test=0.2"),
        ("{}#half", "write #test=0.2"),
        ("my_pictures", "no folder 'my_pictures' here"),
        ("a/b/c", "no folder 'a/b/c' here"),
    ],
)
def test_sources_that_cannot_be_split_or_found_are_named_at_once(only_training, source, message):
    with pytest.raises(si.InputError, match=message):
        si.load_data(source.format(only_training), "test")


def test_a_model_is_listed_by_its_whole_name(capsys):
    found = said(capsys, "models").splitlines()[1 : 1 + len(si.list_models())]
    assert [line.split()[0] for line in found] == si.list_models()
    assert "certified-gaussian-0.50-resnet20-cifar10" in si.list_models()
