import pytest

import smoothinfer as si
from smoothinfer.attacks import ARGUMENTS, ATTACKS
from smoothinfer.config.components import Component
from smoothinfer.numerics.balls import BALLS
from smoothinfer.recipes import recipe_from
from smoothinfer.training.schedules import SCHEDULES
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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pgd()+pgd()", "write one name"),
        ("pgd()()", "write one name"),
        ("pgd(7)", "options need names"),
        ("pgd(steps=seven)", "seven is no value"),
        ("pgd(steps=" + "-" * 9000 + "1)", "cannot read"),
        ("pgd(images=1)", "unknown option .*'images'"),
        ("pgd(generator=1)", "unknown option .*'generator'"),
        ("pgd(steps=None)", "steps of attack 'pgd' must be int"),
        ("apgd(steps='many')", "steps of attack 'apgd' must be int"),
        ("pgd(targets='a')", "targets of attack 'pgd' must be"),
        ("os:getcwd", "cannot be called with"),
        ("os:path", "is no function"),
        ("tests.conftest:line", "cannot be called with"),
    ],
)
def test_attacks_that_cannot_be_called_are_refused_before_any_work(text, message):
    with pytest.raises(si.InputError, match=message):
        Component.of(text).bind("attack", ATTACKS, ARGUMENTS)


def test_an_option_that_is_missing_is_named():
    with pytest.raises(si.InputError, match=r"missing a required argument: 'radius'.*linf\("):
        Component.of("linf").bind("ball", BALLS)


def test_lists_are_checked_number_by_number():
    steps = Component.of("steps(milestones=[0.5, 0.75])").bind("schedule", SCHEDULES, ("progress",))
    assert steps(0.6) == 0.1
    for bad in ("'ab'", "['a']", "3", "[None]"):
        with pytest.raises(si.InputError, match="milestones of schedule 'steps' must be"):
            Component.of(f"steps(milestones={bad})").bind("schedule", SCHEDULES, ("progress",))


def test_an_option_may_be_called_name():
    component = Component.of("my.networks:make(name='vit-b', depth=3)")
    assert Component.of(component.to_dict()) == component
    assert Component.of(str(component)) == component
