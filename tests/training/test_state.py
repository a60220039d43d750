import pytest

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from tests.conftest import SINGLE_STEP, TINY


def test_a_state_of_another_network_is_refused(tmp_path, digits):
    si.train_run(recipe_from(TINY | {"epochs": 1}), digits, tmp_path / "a")
    other = recipe_from(TINY | {"epochs": 1, "model": {"name": "smallnet", "width": 8}})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "state.pt").write_bytes((tmp_path / "a" / "state.pt").read_bytes())
    with pytest.raises(si.InputError, match="does not fit this recipe"):
        si.train_run(other, digits, tmp_path / "b")


def test_a_state_that_was_cut_off_is_refused(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    with pytest.raises(si.InputError, match="cannot be read"):
        si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
