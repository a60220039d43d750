import pytest

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from tests.conftest import SINGLE_STEP


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": "resnet21"}, "resnet20"),
        ({"model": {"name": "resnet20", "depth": 3}}, r"unknown option.*width"),
        ({"model": "no.such:thing"}, "cannot import"),
        ({"noise": {"weights": "cmi"}}, "cni"),
        ({"normalise": {}}, "normalise"),
    ],
)
def test_bad_components_are_refused_when_built(content, message):
    whole = {"normalise": {"mean": [0.5], "std": [0.5]}, **content}
    with pytest.raises(si.InputError, match=message):
        recipe_from(whole).build_model((1, 8, 8), 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attack": "pgd(steps='many')"}, "option steps of attack 'pgd' must be int, not 'many'"),
        ({"model": "smallnet(width='big')"}, "option width of model 'smallnet' must be int"),
        ({"schedule": {"warmup": 3}}, "schedule: write a name"),
    ],
)
def test_options_of_a_wrong_type_are_named(change, message, tmp_path, digits):
    with pytest.raises(si.InputError, match=message):
        si.train_run(recipe_from(SINGLE_STEP | change), digits, tmp_path)
