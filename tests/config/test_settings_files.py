import pytest

import smoothinfer as si
from smoothinfer.config.components import Component
from smoothinfer.config.settings_files import apply_overrides
from smoothinfer.recipes import load_recipe, recipe_from


def test_a_scale_that_is_unknown_or_not_in_the_file_is_refused():
    with pytest.raises(si.InputError, match=r"unknown scale 'long'.*paper, short, smoke"):
        load_recipe("recipes/cifar10/cni-w.yaml", scale="long")
    with pytest.raises(si.InputError, match="no `scales: paper:` section"):
        load_recipe("recipes/digits/cni-w.yaml", scale="paper")


def test_a_file_with_other_scales_is_refused(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("scales: {long: {epochs: 1000}}")
    with pytest.raises(si.InputError, match="must be a mapping from short or paper or smoke"):
        load_recipe(path)


def test_a_recipe_extends_another(tmp_path):
    (tmp_path / "base.yaml").write_text("lr: 0.3\nepochs: 9\nattack: pgd(steps=3)\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nlr: 0.1\n")
    recipe = load_recipe(tmp_path / "mine.yaml", ["epochs=4"])
    assert (recipe.lr, recipe.epochs, recipe.attack.options) == (0.1, 4, {"steps": 3})
    (tmp_path / "base.yaml").write_text("extends: mine.yaml\n")
    with pytest.raises(si.InputError, match="extends itself"):
        load_recipe(tmp_path / "mine.yaml")
    (tmp_path / "lost.yaml").write_text("extends: nowhere.yaml\n")
    with pytest.raises(si.InputError, match=r"lost.yaml extends .*nowhere.yaml"):
        load_recipe(tmp_path / "lost.yaml")


def test_a_missing_recipe_names_those_there_are():
    with pytest.raises(si.InputError, match=r"choose one of \d+, such as boards/cifar10\.yaml"):
        load_recipe("recipes/nothing.yaml")
    with pytest.raises(si.InputError, match=r"did you mean 'cifar10/cni-w\.yaml'"):
        load_recipe("cifar10/cniw.yaml")


def test_overrides_reach_inside():
    content = apply_overrides(
        {"model": "resnet20", "lr": 0.1}, ["model.width=8", "ball.radius=4/255", "epochs=3"]
    )
    recipe = recipe_from(content | {"ball": {"name": "linf", **content["ball"]}})
    assert recipe.model == Component("resnet20", {"width": 8})
    assert recipe.build_ball().radius == 4 / 255
    assert recipe.epochs == 3


def test_an_option_of_a_call_can_be_changed():
    content = {"attack": "pgd(steps=7, draws=2)"}
    changed = apply_overrides(content, ["attack.steps=3"])
    assert changed == {"attack": {"name": "pgd", "steps": 3, "draws": 2}}
