"""Whatever changes what a network computes changes its key: methods, hooks, modes, torch itself."""

import functools
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import smoothinfer as si
from tests.evaluation.user_files import key_of


class Net(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.linear = scale, nn.Linear(4, 3)

    def forward(self, images):
        return self.scale * self.linear(images.flatten(1))


def louder(self, images):
    return 2 * self.linear(images.flatten(1))


def with_method(net):
    net.forward = types.MethodType(louder, net)


def with_hook(net):
    net.linear.register_forward_hook(lambda module, args, output: output + 1)


def with_pre_hook(net):
    net.linear.register_forward_pre_hook(functools.partial(hooked, by=1))


def hooked(module, args, by):
    return (args[0] + by,)


def with_parametrisation(net):
    parametrizations.weight_norm(net.linear)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def with_own_parametrisation(net):
    parametrize.register_parametrization(net.linear, "weight", Doubled(), unsafe=True)


def with_dropout_left_on(net):
    net.drop = nn.Dropout().train()


def with_compilation(net):
    net.compile()


@pytest.mark.parametrize(
    "change",
    [with_method, with_hook, with_pre_hook, with_parametrisation, with_own_parametrisation,
     with_dropout_left_on, with_compilation],
)  # fmt: skip
def test_a_network_changes(change):
    def made():
        with si.isolated_rng(0):
            return Net().eval()

    nets = [made() for _ in range(3)]
    before = key_of(nets[0])
    for net in nets[1:]:
        change(net)
    assert key_of(nets[1]) == key_of(nets[2]) != before


@pytest.mark.parametrize(
    ("place", "name"),
    [(nn.Linear, "forward"), (F, "linear"), (torch, "relu"), (torch.Tensor, "add")],
)
def test_a_replaced_part_of_torch_counts(place, name, monkeypatch):
    def replaced(*args):
        return original(*args) * 2

    net, original = Net(), getattr(place, name)
    before = key_of(net)
    monkeypatch.setattr(place, name, replaced)
    assert key_of(net) != before


def test_a_hook_on_all_modules_counts():
    before = key_of(Net())
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, output: output + 1)
    try:
        assert key_of(1)[1] != before[1]
    finally:
        handle.remove()


def negated(graph, examples):
    return lambda *args: tuple(-each for each in graph(*args))


@pytest.mark.parametrize("inside", [False, True])
def test_the_backend_of_a_compiled_network_counts_if_it_is_the_users(inside):
    def compiled(backend):
        with si.isolated_rng(0):
            net = Net()
        if not inside:
            return torch.compile(net, backend=backend)
        net.compile(backend=backend)
        return net

    keys = [key_of(compiled(backend)) for backend in ("eager", "inductor", negated, negated)]
    assert keys[0] == keys[1] != keys[2] == keys[3]
