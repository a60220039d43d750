"""Anybody's network and pictures: transformers, timm, factories, folders of large images."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import smoothinfer as si
from smoothinfer.backbones import from_timm
from smoothinfer.cli import main
from smoothinfer.recipes import recipe_from


def small_backbone(classes=2, width=4):
    """What a user's package.module:factory may look like; it takes pictures of any size."""
    return nn.Sequential(
        nn.Conv2d(3, width, 7, stride=4, padding=3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def whole_model():
    return nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), small_backbone())


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder of 224x224 pictures: the first class is darker."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for name, high in (("dark", 120), ("light", 256)):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, high, (224, 224, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def test_large_pictures_and_a_factory_go_all_the_way(pictures, tmp_path):
    data = si.load_data(str(pictures), "train")
    assert data.shape == (3, 224, 224)
    content = {
        "model": {"name": "tests.test_backbones:small_backbone", "width": 6},
        "noise": {"inputs": "gaussian(sigma=0.05)", "weights": "cni(rank=2)"},
        "attack": "pgd(steps=2)",
        "epochs": 4,
        "batch_size": 4,
        "lr": 0.05,
        "validation": {"held_out": 4, "images": 4},
        "compile": "off",
    }
    si.train_run(recipe_from(content), data, tmp_path / "run")
    model = si.load(tmp_path / "run", "last", trust_code=True)
    smooth = si.SmoothedClassifier(model, samples=8, seed=0)
    test = si.load_data(str(pictures), "test")
    rows = si.evaluate(smooth, test, attack="pgd", ball=si.Linf(2 / 255))
    clean = rows.slice(0, len(test))["correct"].to_pylist()
    assert sum(clean) == len(test)
    assert smooth.predict(test.images, stop="ppr").decided.shape == (len(test),)


def test_a_factory_is_a_model_on_the_command_line(pictures, tmp_path):
    given = ["evaluate", "tests.test_backbones:whole_model", "--data", str(pictures)]
    given += ["--sigma", "0.05", "--attack", "fgsm", "--samples", "4"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "summary.json").exists()


def goes_through(network, size):
    module = nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), network).eval()
    noisy = si.NoisyModel(module, inputs=si.Gaussian(0.05), weights=si.PNI()).eval()
    images = torch.rand(2, 3, size, size)
    labels = noisy(images).argmax(1)
    adversarial = si.pgd(noisy, images, labels, si.Linf(8 / 255), steps=2, draws=2)
    assert (adversarial - images).abs().max() <= 8 / 255 + 1e-6
    answer = si.SmoothedClassifier(noisy, samples=4, seed=0).predict(adversarial)
    assert answer.counts.sum(1).tolist() == [4, 4]


def test_transformers_networks_work():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=16, image_size=32, patch_size=8, num_labels=5
    )
    goes_through(si.LogitsOf(transformers.ViTForImageClassification(config)), 32)
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=5
    )
    goes_through(si.LogitsOf(transformers.ResNetForImageClassification(config)), 64)


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224"])
def test_timm_networks_work(name):
    timm = pytest.importorskip("timm", exc_type=ImportError)  # it needs torchvision
    goes_through(timm.create_model(name, pretrained=False, num_classes=5), 224)


def test_networks_of_timm_have_the_classes_and_channels_of_the_data(monkeypatch):
    fake = SimpleNamespace(
        is_model=lambda name: name == "resnet18",
        list_models=lambda pattern: ["resnet18"] if "resnet" in pattern else [],
        create_model=lambda name, num_classes, in_chans, **more: si.smallnet(
            num_classes, in_chans, **more
        ),
    )
    monkeypatch.setitem(sys.modules, "timm", fake)
    about = {"model": "smoothinfer.backbones:from_timm(name='resnet18', width=4)"}
    recipe = recipe_from(about | {"normalise": {"mean": [0.5], "std": [0.5]}})
    model = recipe.build_model((1, 8, 8), 7)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    with pytest.raises(si.InputError, match="no network 'resnet19': such as resnet18"):
        from_timm("resnet19")


def test_a_library_that_is_missing_or_broken_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(si.InputError, match="timm is not installed: pip install timm"):
        from_timm("resnet18")
    monkeypatch.delitem(sys.modules, "timm")
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(si.InputError, match="cannot be imported here: operator nms"):
        from_timm("resnet18")
