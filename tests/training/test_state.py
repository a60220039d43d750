import random

import pytest

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from smoothinfer.training.state import read_identity
from tests.conftest import SINGLE_STEP, TINY


def test_a_state_of_another_network_is_refused(tmp_path, digits):
    si.train_run(recipe_from(TINY | {"epochs": 1}), digits, tmp_path / "a")
    other = recipe_from(TINY | {"epochs": 1, "model": {"name": "smallnet", "width": 8}})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "state.pt").write_bytes((tmp_path / "a" / "state.pt").read_bytes())
    with pytest.raises(si.InputError, match="they differ in model: choose another --out"):
        si.train_run(other, digits, tmp_path / "b")


def test_every_flipped_bit_of_a_state_is_found(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    path, chance = tmp_path / "state.pt", random.Random(0)
    content = path.read_bytes()
    for place in [*(chance.randrange(len(content)) for _ in range(300)), -1, -80]:
        broken = bytearray(content)
        broken[place] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(broken))
        with pytest.raises(si.InputError, match=r"state\.pt is damaged.*delete it to start"):
            read_identity(path)


def test_a_state_that_was_cut_off_is_refused(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    with pytest.raises(si.InputError, match=r"state\.pt is damaged.*delete it to start"):
        si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
