from argparse import ArgumentParser

import pytest

import smoothinfer as si
from smoothinfer.attacks.checks import is_random
from smoothinfer.board_recipe import BoardRecipe
from smoothinfer.cli import COMMANDS, main
from smoothinfer.cli.numbers import read_range
from smoothinfer.cli.options import OF_BOARD, OF_SWEEP, OF_TRAINING, attack_of
from smoothinfer.config.components import Component
from smoothinfer.config.settings_files import apply_overrides, read_settings
from smoothinfer.config.typed import from_dict
from smoothinfer.recipes import Recipe
from smoothinfer.shipped_files import recipe_path
from smoothinfer.sweep_recipe import SweepRecipe
from tests.fuzz.commands import actions_of


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ("transfer", "transfer needs a source"),
        ("transfer(source='nobody')", "no model 'nobody'"),
        ("transfer(source='nobody', noise=2)", "noise of a source is True or False"),
        ("transfer(source='nobody', noise=False, sigma=0.1)", "with False there is no sigma"),
    ],
)
def test_a_transfer_names_its_source(attack, message, tiny_run, tmp_path, capsys):
    arguments = ["evaluate", str(tiny_run), "--data", "digits", "--attack", attack]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_the_source_of_a_transfer_can_be_rid_of_its_noise(tiny_run):
    images = si.load_data("digits", "test", 8).images
    for options, random in (("", True), (", noise=False", False), (", sigma=0.1", True)):
        attack = attack_of(Component.of(f"transfer(source='{tiny_run}', steps=2{options})"))
        source = attack.keywords["source"].eval()
        assert is_random(source, images) == random


def test_a_range_has_an_end():
    assert len(read_range("sigma", "0:1:0.001")) == 1001
    for text in ("0:1:1e-9", "0:1e300:1", "0:1e308:1e-308"):
        with pytest.raises(si.InputError, match=r"10000 is the most|whole steps"):
            read_range("sigma", text)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_several_values_may_be_repeated(command):
    for action in actions_of(command):
        if action.nargs == "+" and action.option_strings:
            branch = ArgumentParser()
            branch._add_action(action)
            name = action.option_strings[-1]
            found = branch.parse_args([name, "1", "2", name, "3"])
            assert list(map(str, getattr(found, action.dest))) == ["1", "2", "3"], name


@pytest.mark.parametrize(
    ("kind", "recipe", "example"),
    [
        (Recipe, "cifar10/cni-w.yaml", OF_TRAINING),
        (SweepRecipe, "sweeps/digits.yaml", OF_SWEEP),
        (BoardRecipe, "boards/cifar10.yaml", OF_BOARD),
    ],
)
def test_the_example_of_set_changes_keys_that_the_recipe_has(kind, recipe, example):
    content = read_settings(recipe_path(recipe))
    assert from_dict(kind, apply_overrides(content, example.split()), recipe)
