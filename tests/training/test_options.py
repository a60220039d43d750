import importlib.util

import pytest

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from tests.conftest import SINGLE_STEP, TINY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 4000}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"epoch_images": -1}, "epoch_images must be 0 or more"),
        ({"epoch_images": 63}, "no step to take on 63 images"),
        ({"validation": {"held_out": 0}}, "at least 1"),
        ({"validation": {"held_out": 500}}, "of 500 images"),
    ],
)
def test_impossible_trainings_are_refused(change, message, tmp_path, digits):
    with pytest.raises(si.InputError, match=message):
        si.train_run(recipe_from(TINY | change), digits, tmp_path)


def test_a_tracker_that_is_not_there_is_refused(tmp_path, digits):
    if importlib.util.find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with pytest.raises(si.InputError, match="tensorboard"):
        si.train_run(recipe_from(TINY | {"trackers": ["tensorboard"]}), digits, tmp_path)


def test_trackers_get_the_table_of_epochs(tmp_path, digits):
    pytest.importorskip("tensorboard")
    si.train_run(recipe_from(SINGLE_STEP | {"trackers": ["tensorboard"]}), digits, tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents*"))


@pytest.mark.parametrize("change", [{"lr": -1.0}, {"clip": -0.5}, {"momentum": 1.0}, {"crop": -4}])
def test_numbers_of_a_training_have_ranges(change):
    with pytest.raises(si.InputError, match=next(iter(change))):
        recipe_from(change)
