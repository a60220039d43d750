"""Other people's tools take our models as they are; each test skips where its tool is absent."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.conftest import small_net

RADIUS = 0.1


@pytest.fixture
def models():
    noisy = si.NoisyModel(small_net(), inputs=si.Gaussian(0.05), weights=si.CNI(rank=1)).eval()
    left_on = nn.Dropout(0.3)
    random = nn.Sequential(small_net(), left_on).eval()
    left_on.train()
    yield noisy, si.SmoothedClassifier(noisy, samples=4), si.SmoothedClassifier(random, samples=4)
    assert left_on.training  # tools switch to eval mode: what is inside a vote stays as it was


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(12, 1, 8, 8, generator=generator)
    with torch.no_grad():
        return images, small_net().eval()(images).argmax(1)


def check(images, adversarial):
    assert adversarial.shape == images.shape
    assert (adversarial - images).abs().max() <= RADIUS + 1e-4
    assert not torch.equal(adversarial, images)


def test_foolbox(models, batch):
    foolbox = pytest.importorskip("foolbox")
    images, labels = batch
    for model in models:
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        attack = foolbox.attacks.LinfPGD(steps=3)
        check(images, attack(wrapped, images, labels, epsilons=RADIUS)[1])


def test_art(models, batch):
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    images, labels = batch
    for model in models:
        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), (1, 8, 8), 3, clip_values=(0.0, 1.0)
        )
        attack = ProjectedGradientDescentPyTorch(
            classifier, eps=RADIUS, eps_step=0.03, max_iter=3, verbose=False
        )
        adversarial = attack.generate(images.numpy(), labels.numpy())
        check(images, torch.from_numpy(adversarial))


def test_torchattacks(models, batch):
    torchattacks = pytest.importorskip("torchattacks")
    images, labels = batch
    for model in models:
        check(images, torchattacks.PGD(model, eps=RADIUS, alpha=0.03, steps=3)(images, labels))


def test_autoattack(models, batch):
    pyautoattack = pytest.importorskip("pyautoattack")
    images, labels = batch
    for model in models:
        attack = pyautoattack.AutoAttack(model, norm="Linf", eps=RADIUS, version="rand")
        attack.apgd.n_iter, attack.apgd.eot_iter = 3, 2
        adversarial, *_ = attack.run_standard_evaluation(images, labels, batch_size=12)
        assert (adversarial - images).abs().max() <= RADIUS + 1e-4


def test_tools_that_refuse_randomness_take_a_frozen_view(models, batch):
    images, _ = batch
    for model in models:
        fixed = si.frozen(model, seed=0, samples=3)
        assert torch.equal(fixed(images), fixed(images))


def test_their_attacks_go_through_our_evaluate(models, batch):
    foolbox = pytest.importorskip("foolbox")

    def theirs(model, images, labels, ball, *, generator=None):
        del generator
        attack = foolbox.attacks.LinfPGD(steps=3)
        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        return attack(wrapped, images, labels, epsilons=ball.radius)[1]

    rows = si.evaluate(models[1], batch, attack={"theirs": theirs}, ball=si.Linf(RADIUS))
    assert set(rows["attack"].to_pylist()) == {"none", "theirs"}
    assert max(rows["distance"].to_pylist()) <= RADIUS + 1e-4
