"""A captured pass does what the pass itself does, and does it anew each time."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from smoothinfer.attacks import kl_pgd, pgd
from smoothinfer.config.components import Component
from smoothinfer.data import load_data
from smoothinfer.errors import InputError
from smoothinfer.networks import Normalize, smallnet
from smoothinfer.noise import CNI, PNI, Gaussian, NoisyModel
from smoothinfer.numerics.balls import Linf
from smoothinfer.training.cuda_graphs import CUDAGraphModule
from smoothinfer.training.loop import train
from smoothinfer.training.losses import adversarial, trades
from smoothinfer.training.options import TrainingOptions


class Again:
    """Stands in for a CUDA graph where there is no GPU: the work itself, once more."""

    def __init__(self, work, pool):
        self.replay = work
        work()


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])
NOISES = [{}, {"weights": PNI()}, {"weights": CNI(), "inputs": Gaussian(0.1)}]


def noisy(device, **noise):
    torch.manual_seed(0)
    net = nn.Sequential(Normalize([0.5] * 3, [0.25] * 3), smallnet(channels=3, width=8))
    return NoisyModel(net, **noise).to(device)


def captured(model):
    on_gpu = next(model.parameters()).is_cuda
    return CUDAGraphModule(model, None if on_gpu else Again)


def batch(device, count=6):
    images = torch.rand(count, 3, 8, 8, device=device)
    return images, torch.randint(10, (count,), device=device)


@DEVICES
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize(
    ("loss", "attack"),
    [(adversarial, partial(pgd, steps=2)), (trades, partial(kl_pgd, steps=2))],
)
def test_a_step_ends_with_the_same_weights(device, noise, loss, attack):
    plain = noisy(device, **noise)
    twin = copy.deepcopy(plain)
    captured_model = captured(twin)
    craft = partial(attack, ball=Linf(8 / 255), precision="fp32")
    pairs = [
        (model, torch.optim.SGD(model.parameters(), 0.05)) for model in (plain, captured_model)
    ]
    for step in range(3):
        images, labels = batch(device)
        values = []
        for model, optimizer in pairs:
            model.train()
            optimizer.zero_grad()
            torch.manual_seed(step)
            value = loss(model, images, labels, craft)
            value.backward()
            optimizer.step()
            values.append(value.item())
        # Attacks fold normalisation into weights where nothing is captured: other last bits.
        assert values[0] == pytest.approx(values[1], rel=1e-3)
    theirs = twin.state_dict()
    for name, tensor in plain.state_dict().items():
        assert torch.allclose(tensor, theirs[name], atol=2e-3), name


@DEVICES
def test_every_replay_draws_afresh_and_reads_the_weights_as_they_are(device):
    model = noisy(device, weights=PNI()).eval()
    captured_model, (images, _) = captured(model), batch(device)
    with torch.no_grad():
        first, second = captured_model(images), captured_model(images)
        assert not torch.equal(first, second)
        torch.manual_seed(1)
        before = captured_model(images)
        torch.manual_seed(1)
        assert torch.equal(before, captured_model(images))
        for parameter in model.parameters():
            parameter.mul_(1.5)
        torch.manual_seed(1)
        after = captured_model(images)
        torch.manual_seed(1)
        assert not torch.allclose(before, after, atol=1e-3)
        assert torch.allclose(after, model(images), atol=1e-4)


@DEVICES
def test_capture_leaves_no_trace(device):
    model = noisy(device, weights=PNI()).train()
    captured_model, (images, _) = captured(model), batch(device)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.manual_seed(3)
    captured_model(images)
    once = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for name, buffer in model.named_buffers():
        buffer.copy_(before[name])
    torch.manual_seed(3)
    model(images)
    for name, buffer in model.named_buffers():
        assert torch.allclose(buffer.float(), once[name].float(), atol=1e-5), name


@DEVICES
def test_gradients_of_two_passes_do_not_overwrite_each_other(device):
    model = noisy(device).train()
    captured_model, (images, labels) = captured(model), batch(device)
    loss = nn.functional.cross_entropy
    both = loss(captured_model(images), labels) + loss(captured_model(images.flip(0)), labels)
    both.backward()
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for each in (images, images.flip(0)):  # what is kept of one backward outlives the next
        loss(captured_model(each), labels).backward()
    for parameter, gradient in zip(model.parameters(), found, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-5)


@DEVICES
def test_a_pass_whose_gradient_nobody_asks_for_is_used_again(device):
    captured_model, (images, _) = captured(noisy(device).train()), batch(device)
    for _ in range(5):
        captured_model(images)
    assert [len(each) for each in captured_model._passes.values()] == [1]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_graphs_need_a_gpu(tmp_path):
    data = load_data("digits", "train")
    options = TrainingOptions(
        epochs=1, batch_size=32, lr=0.1, schedule=Component("constant"), compile="graphs"
    )
    with pytest.raises(InputError, match="compile: graphs needs a GPU"):
        train(smallnet(), adversarial, data, options, tmp_path, lambda model: {}, lambda *a: None)


@NO_GPU
def test_a_training_with_graphs_ends_where_one_without_ends(tmp_path):
    data, ends = load_data("digits", "train"), []
    for how in ("off", "graphs"):
        torch.manual_seed(0)
        model = NoisyModel(smallnet(), weights=PNI())
        numbers = {"epochs": 1, "batch_size": 128, "lr": 0.05, "precision": "fp32"}
        options = TrainingOptions(**numbers, schedule=Component("constant"), compile=how)
        craft = partial(pgd, ball=Linf(0.1), steps=2, precision="fp32")
        loss = partial(adversarial, attack=craft)
        out, validate = tmp_path / how, lambda model: {"attacked": 0.0}
        train(model, loss, data, options, out, validate, lambda *a: None)
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        assert torch.allclose(tensor.float(), ends[1][name].float(), atol=5e-3), name
