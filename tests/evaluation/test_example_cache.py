"""Adversarial examples kept for reuse: found again where they are the same, never where not."""

from functools import partial

import pytest

import smoothinfer as si
from smoothinfer.evaluation.costs import Cost
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.example_cache import StageFile
from smoothinfer.evaluation.rows import CLEAN
from tests.conftest import line


def examples_of(folder, sigma, attack, **changes):
    """Make the examples of ``attack`` on the digits, cached in ``folder``."""
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(sigma)).eval()
    data = si.load_data("digits", "test", 20)
    work = prepare(noisy, data, attack=attack, ball=si.Linf(0.1), cache=folder, **changes)
    (name,) = set(work.attacks) - {CLEAN}
    return work.examples(name, 0)


def files_in(folder):
    return set(folder.iterdir())


def test_more_passes_and_other_rules_use_the_examples_that_are_there(tmp_path):
    adversarial, cost = examples_of(tmp_path, 0.05, "fgsm")
    before = files_in(tmp_path)
    assert len(before) == 1
    again, known = examples_of(tmp_path, 0.05, "fgsm", samples=[5], rules=["soft"])
    assert files_in(tmp_path) == before
    assert again.equal(adversarial)
    assert known == cost


def test_another_target_seed_or_attack_makes_examples_of_its_own(tmp_path):
    examples_of(tmp_path, 0.05, "fgsm")
    examples_of(tmp_path, 0.1, "fgsm")
    examples_of(tmp_path, 0.05, "fgsm", seed=1)
    examples_of(tmp_path, 0.05, {"fgsm": partial(si.fgsm, draws=2)})
    assert len(files_in(tmp_path)) == 4


def test_transferred_examples_do_not_depend_on_the_target(tmp_path):
    attack = {"transfer": partial(si.transfer, source=line(), steps=2)}
    one, two = (examples_of(tmp_path, sigma, attack)[0] for sigma in (0.05, 0.1))
    assert len(files_in(tmp_path)) == 1
    assert one.equal(two)


def test_a_damaged_example_is_found(tmp_path):
    examples_of(tmp_path, 0.05, "fgsm")
    (example,) = files_in(tmp_path)
    whole = example.read_bytes()
    cost = whole.index(b"forwards") + 14  # a digit
    for place in (-5, 20, cost):  # in the pixels, in the header, in the cost
        content = bytearray(whole)
        content[place] ^= 4
        example.write_bytes(bytes(content))
        with pytest.raises(si.InputError, match=example.name):
            examples_of(tmp_path, 0.05, "fgsm")


def test_a_batch_under_the_name_of_another_is_found(tmp_path):
    examples_of(tmp_path, 0.05, "fgsm")
    (one,) = files_in(tmp_path)
    examples_of(tmp_path, 0.1, "fgsm")
    (two,) = files_in(tmp_path) - {one}
    one.write_bytes(two.read_bytes())
    with pytest.raises(si.InputError, match=rf"{one.name} is damaged"):
        examples_of(tmp_path, 0.05, "fgsm")


class KilledError(Exception):
    pass


def run_standard(folder, stops_after=None):
    """Run the quick standard attack on images that most attacks leave right, or die under way."""
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.05)).eval()
    images = si.load_data("digits", "test", 20).images
    labels = si.SmoothedClassifier(noisy, 64, seed=0).predict(images).labels
    attack = {"standard": partial(si.ATTACKS["standard"], budget="quick")}
    work = prepare(noisy, (images, labels), attack=attack, ball=si.Linf(0.01), cache=folder)
    if stops_after is None:
        return work.examples("standard", 0)
    save = StageFile.save

    def save_and_die(file, state):
        save(file, state)
        if int(state["stages"]) == stops_after:
            raise KilledError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageFile, "save", save_and_die)
        with pytest.raises(KilledError):
            work.examples("standard", 0)
    return None


def test_a_killed_attack_ends_with_the_examples_and_the_cost_of_a_whole_one(tmp_path):
    whole, cost = run_standard(tmp_path / "whole")
    assert len(files_in(tmp_path / "whole")) == 1  # no state is left
    run_standard(tmp_path / "cut", stops_after=3)
    assert [path.suffix for path in files_in(tmp_path / "cut")] == [".stages"]
    cut, its_cost = run_standard(tmp_path / "cut")
    assert cut.equal(whole)
    # Both processes vote on the images, order the classes and look for networks.
    assert cost.backwards == its_cost.backwards
    assert cost.forwards < its_cost.forwards < 1.5 * cost.forwards
    assert [path.suffix for path in files_in(tmp_path / "cut")] == [".safetensors"]


def test_a_damaged_state_and_one_of_another_batch_are_told_and_not_used(tmp_path):
    run_standard(tmp_path, stops_after=2)
    (state,) = files_in(tmp_path)
    other = StageFile(state, "another key", Cost())
    with pytest.warns(UserWarning, match="of another batch: the attack on its batch starts anew"):
        assert other.load() is None
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(bytes(content))
    with pytest.warns(UserWarning, match=r"damaged .* starts anew"):
        found, _ = run_standard(tmp_path)
    assert found.equal(run_standard(tmp_path / "whole")[0])
