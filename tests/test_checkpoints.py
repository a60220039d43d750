"""Checkpoints: weights and card come back as they were, or the fault is named."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.cards import read_card
from smoothinfer.checkpoints import (
    load_checkpoint,
)
from smoothinfer.recipes import recipe_from
from smoothinfer.start_weights import card_of_start, load_weights_into

RECIPE = recipe_from(
    {
        "model": {"name": "smallnet", "width": 4},
        "noise": {"weights": "cni(rank=1)", "inputs": "gaussian(sigma=0.1)"},
        "normalise": {"mean": [0.5], "std": [0.25]},
    }
)


@pytest.fixture
def saved(tmp_path):
    model = RECIPE.build_model((1, 8, 8), 3).eval()
    si.save_checkpoint(tmp_path / "a.safetensors", model, RECIPE, (1, 8, 8), ("a", "b", "c"))
    return model, tmp_path / "a.safetensors"


def factory():
    return si.NoisyModel(si.smallnet(classes=3), inputs=si.Gaussian(0.1))


def not_a_model():
    return 3


def test_a_checkpoint_comes_back_as_it_was(saved):
    model, path = saved
    images = torch.rand(4, 1, 8, 8)
    again = si.load(path)
    assert torch.equal(again.member(0, 3)(images), model.member(0, 3)(images))
    assert not any(part.training for part in again.modules())
    assert read_card(path)["classes"] == ["a", "b", "c"]


def test_a_changed_checkpoint_is_found_out(saved):
    _, path = saved
    content = bytearray(path.read_bytes())
    for place in range(8, len(content), len(content) // 25):
        damaged = content.copy()
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(si.InputError, match="SHA-256"):
            si.load(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(si.InputError, match="not valid JSON"):
        si.load(path)
    path.with_suffix(".json").write_text("{}")
    with pytest.raises(si.InputError, match="lacks"):
        si.load(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(si.InputError, match=r"no such file.*a\.json"):
        si.load(path)


def test_a_checkpoint_of_another_network_does_not_fit(saved):
    _, path = saved
    other = recipe_from(RECIPE.to_dict() | {"model": {"name": "smallnet", "width": 8}})
    model = RECIPE.build_model((1, 8, 8), 3)
    si.save_checkpoint(path, model, other, (1, 8, 8), ("a", "b", "c"))
    with pytest.raises(si.InputError, match="does not fit its recipe"):
        load_checkpoint(path)


def test_load_takes_a_factory_and_names_what_there_is():
    assert isinstance(si.load("tests.test_checkpoints:factory"), si.NoisyModel)
    assert not si.load("tests.test_checkpoints:factory").training
    for name, message in (
        ("resnet20", "shipped name"),
        ("tests.test_checkpoints:nothing", "cannot import"),
        ("tests.test_checkpoints:not_a_model", "must return"),
    ):
        with pytest.raises(si.InputError, match=message):
            si.load(name)


def test_weights_alone_and_a_network_alone_are_no_model(tmp_path):
    torch.save(si.smallnet().state_dict(), tmp_path / "mine.pth")
    for name, lack in ((tmp_path / "mine.pth", "file of weights"), ("timm:resnet18", "no weights")):
        with pytest.raises(si.InputError, match=f"{lack}.*harden it first.*module:factory"):
            si.load(name)


@pytest.mark.parametrize(
    "name", si.list_models() or [pytest.param("", marks=pytest.mark.skip("none"))]
)
def test_every_shipped_model_loads(name):
    model = si.load(name)
    card = read_card(f"checkpoints/{name}.safetensors")
    image = torch.rand(1, *card["shape"])
    assert model(image).shape == (1, len(card["classes"]))
    assert not any(part.training for part in model.modules())
    assert card["results"]


def test_a_training_starts_from_the_weights_of_another_with_new_noise(saved):
    _, path = saved
    other = recipe_from(RECIPE.to_dict() | {"noise": {"weights": "cni(rank=2)"}})
    started = other.build_model((1, 8, 8), 3)
    with pytest.raises(si.InputError, match="does not fit this recipe"):  # factors of rank 1
        load_weights_into(started, path)
    plain = recipe_from(RECIPE.to_dict() | {"noise": {}}).build_model((1, 8, 8), 3)
    si.save_checkpoint(path, plain, RECIPE, (1, 8, 8), ("a", "b", "c"))
    before = {name: t.clone() for name, t in started.weight_noises.state_dict().items()}
    load_weights_into(started, path)
    for name, tensor in plain.module.state_dict().items():
        assert torch.equal(started.module.state_dict()[name], tensor)
    for name, tensor in started.weight_noises.state_dict().items():
        assert torch.equal(tensor, before[name])  # noise that is new stays as it is
    with pytest.raises(si.InputError, match="differ"):
        load_weights_into(plain.module, path)
    assert card_of_start(path)["shape"] == [1, 8, 8]
    with pytest.raises(si.InputError, match="train it first"):
        card_of_start("runs/nowhere")


def test_a_run_folder_without_a_checkpoint_says_so(tmp_path):
    with pytest.raises(si.InputError, match=r"has no last\.safetensors yet"):
        si.load(tmp_path, which="last")
