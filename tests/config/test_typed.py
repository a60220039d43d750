import pytest

import smoothinfer as si
from smoothinfer.board_recipe import Claim
from smoothinfer.config.typed import from_dict
from smoothinfer.recipes import recipe_from


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epoch": 3}, r"unknown key.*'epoch'.*epochs"),
        ({"validation": {"size": 3}}, r"unknown key.*held_out"),
        ({"epochs": "many"}, "epochs must be int"),
        ({"epochs": True}, "epochs must be int"),
        ({"lr": "fast"}, "lr must be float"),
        ({"model": 3}, "name"),
        ({"attack": "pgd(7)"}, "names"),
        ({"attack": "pgd(steps="}, "cannot read"),
    ],
)
def test_bad_recipes_are_refused(content, message):
    with pytest.raises(si.InputError, match=message):
        recipe_from(content)


def test_numbers_are_read_as_written():
    recipe = recipe_from({"weight_decay": "1e-4", "lr": 1, "compile": False})
    assert recipe.weight_decay == 1e-4
    assert recipe.lr == 1.0
    assert recipe.compile == "off"


def test_a_missing_key_is_named():
    with pytest.raises(si.InputError, match="claim lacks the key 'source'"):
        from_dict(Claim, {"text": "x"}, "claim")
