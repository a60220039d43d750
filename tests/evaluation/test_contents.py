"""Digests of contents: another number is another digest, another way to keep it is not."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.contents import tensor_digest
from smoothinfer.evaluation.fingerprint import Fingerprint
from tests.evaluation.user_files import key_of

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.complex128, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_format_are_told_apart(dtype):
    zeros = torch.zeros(3).to(dtype)
    other = torch.tensor([0, 0, 1]).to(dtype)
    digests = {tensor_digest(each) for each in (zeros, zeros.clone(), other, zeros[:2], zeros[:0])}
    assert len(digests) == 4
    assert tensor_digest(zeros[None]) not in digests


def test_every_bit_of_a_tensor_counts():
    assert tensor_digest(torch.tensor(0.0)) != tensor_digest(torch.tensor(-0.0))


def quantised(scale):
    return torch.quantize_per_tensor(torch.tensor([1.0, 2.0]), scale, 0, torch.qint8)


def by_channel(scale):
    scales, points = torch.tensor([scale, 0.1]), torch.tensor([0, 0])
    return torch.quantize_per_channel(torch.eye(2), scales, points, 0, torch.qint8)


@pytest.mark.parametrize(
    "make",
    [
        lambda number: torch.tensor([[0.0, number]]).to_sparse(),
        lambda number: torch.tensor([[0.0, number]]).to_sparse_csr(),
        lambda number: torch.tensor([[0.0, number]]).to_sparse_csc(),
        lambda number: torch.tensor([[0.0, number]]).to_mkldnn(),
        lambda number: torch.nested.nested_tensor(
            [torch.tensor([number]), torch.ones(2)], layout=torch.jagged
        ),
        lambda number: torch.complex(torch.tensor(1.0), torch.tensor(number)).conj(),
        quantised,
        by_channel,
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_every_layout_are_told_apart(make):
    assert key_of(make(0.25)) == key_of(make(0.25)) != key_of(make(0.5))


def test_the_place_of_a_number_in_a_sparse_tensor_counts():
    one, two = torch.tensor([[0.0, 1.0]]).to_sparse(), torch.tensor([[1.0, 0.0]]).to_sparse()
    assert key_of(one) != key_of(two)


def test_how_a_tensor_lies_in_memory_does_not_count():
    """Its numbers are the same; sums may differ in the last bits, as between computers."""
    one = torch.rand(2, 3, 4, 4)
    assert tensor_digest(one) == tensor_digest(one.to(memory_format=torch.channels_last))
    assert tensor_digest(one.mT) == tensor_digest(one.mT.contiguous())


class Net(nn.Module):
    def __init__(self, **held):
        super().__init__()
        with si.isolated_rng(0):
            self.conv, self.linear = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(32, 3)
        self.register_buffer("offset", torch.zeros(3), persistent=False)
        vars(self).update(held)

    def forward(self, images):
        return self.linear(self.conv(images).flatten(1)) + self.offset


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.requires_grad_(False),
        lambda net: net(torch.rand(1, 1, 4, 4)).sum().backward(),
        lambda net: net.to(memory_format=torch.channels_last),
        lambda net: net.share_memory(),
        lambda net: net.register_state_dict_post_hook(lambda *args: None),
    ],
)
def test_a_network_stays_the_same_after(change):
    before, net = key_of(Net()), Net()
    change(net)
    assert key_of(net) == before == key_of(copy.deepcopy(net))


@pytest.mark.parametrize(
    "held",
    [0.5, [0.5], {"a": 0.5}, np.array([0.5]), torch.tensor(0.5), nn.ReLU, nn.ReLU(),
     [nn.ReLU()], lambda x: x, SimpleNamespace(inner=nn.ReLU())],
)  # fmt: skip
def test_what_a_network_holds_beside_its_tensors_counts(held):
    keys = [key_of(net) for net in (Net(), Net(held=None), Net(held=held), Net(held=held))]
    assert keys[0] != keys[1] != keys[2] == keys[3]


def test_a_tensor_counts_wherever_a_network_keeps_it():
    for place in (lambda net: net.offset, lambda net: net.conv.weight, lambda net: net.linear.bias):
        net = Net()
        with torch.no_grad():
            place(net).add_(1e-6)
        assert key_of(net) != key_of(Net())


def test_wrappers_count():
    net = Net()
    wrapped = [net, nn.Sequential(net), nn.DataParallel(net), si.LogitsOf(net), torch.compile(net)]
    assert len({str(key_of(each)) for each in wrapped}) == len(wrapped)


def scripted(scale, frozen=False, traced=False):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.weight = scale, nn.Parameter(torch.ones(1))

        def forward(self, images: torch.Tensor):
            return images.flatten(1) * self.scale * self.weight

    net = Scaled().eval()
    made = torch.jit.trace(net, torch.ones(1, 4)) if traced else torch.jit.script(net)
    return torch.jit.freeze(made) if frozen else made


@pytest.mark.parametrize("how", [{}, {"frozen": True}, {"traced": True}])
@pytest.mark.filterwarnings("ignore")
def test_a_scripted_network_counts_by_code_constants_and_tensors(how):
    assert key_of(scripted(1.0, **how)) == key_of(scripted(1.0, **how))
    assert key_of(scripted(1.0, **how)) != key_of(scripted(2.0, **how))
    if not how:
        changed, fixed = scripted(1.0), scripted(1.0)
        fixed.weight.requires_grad_(False)
        with torch.no_grad():
            changed.weight.add_(1)
        assert key_of(changed) != key_of(scripted(1.0)) == key_of(fixed)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_network_counts():
    def made(by):
        net = Net()
        with torch.no_grad():
            net.linear.weight.mul_(by)
        return torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, torch.qint8)

    prints = Fingerprint()
    prints.of(made(1))
    assert not prints.unreadable
    assert key_of(made(1)) == key_of(made(1)) != key_of(made(2))


def test_a_traced_graph_counts():
    def made(by):
        net = Net()
        net.forward = lambda images: by * net.linear(images)
        return torch.fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Hardtanh(-by, by)))

    assert key_of(made(1.0)) == key_of(made(1.0)) != key_of(made(2.0))
