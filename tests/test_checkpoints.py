import pytest
import torch

import smoothinfer as si
from smoothinfer.checkpoints import load_checkpoint, read_card
from smoothinfer.recipes import recipe_from

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


@pytest.mark.parametrize("name", si.MODELS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_model_takes_images(name, channels):
    net = si.MODELS[name](classes=7, channels=channels).eval()
    images = torch.rand(2, channels, 32, 32)
    assert net(images).shape == (2, 7)
    alone, together = net(images[:1]), net(images)[:1]
    assert torch.allclose(alone, together, atol=1e-5 * float(together.abs().max().detach()))


def test_parameter_counts_are_the_papers():
    count = lambda model: sum(p.numel() for p in model.parameters())  # noqa: E731
    assert count(si.resnet20()) == 272_474
    assert count(si.NoisyModel(si.resnet20(), weights=si.CNI(rank=5))) == 1_894_650
    with torch.device("meta"):
        assert count(si.MODELS["wrn34_10"]()) == 46_160_474


def test_normalize_is_its_formula():
    images = torch.rand(2, 3, 4, 4)
    normalize = si.Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7])
    assert torch.allclose(normalize(images)[:, 1], (images[:, 1] - 0.2) / 0.6)
    with pytest.raises(si.InputError, match="1 channels"):
        normalize(torch.rand(2, 1, 4, 4))
    for mean, std in (([0.1], [0.0]), ([0.1, 0.2], [0.5])):
        with pytest.raises(si.InputError, match="std"):
            si.Normalize(mean, std)


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
    assert isinstance(si.load("tests.test_models:factory"), si.NoisyModel)
    assert not si.load("tests.test_models:factory").training
    for name, said in (
        ("resnet20", "shipped name"),
        ("tests.test_models:nothing", "cannot import"),
        ("tests.test_models:not_a_model", "must return"),
    ):
        with pytest.raises(si.InputError, match=said):
            si.load(name)


@pytest.mark.parametrize("name", si.list_models() or [pytest.param("", marks=pytest.mark.skip("none"))])
def test_every_shipped_model_loads(name):
    model = si.load(name)
    card = read_card(f"checkpoints/{name}.safetensors")
    image = torch.rand(1, *card["shape"])
    assert model(image).shape == (1, len(card["classes"]))
    assert not any(part.training for part in model.modules())
    assert card["results"]
