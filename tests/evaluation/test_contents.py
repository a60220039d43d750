"""Digests of contents: another number is another digest, another way to keep it is not."""

import collections
import copy
import io
import threading
import weakref
from dataclasses import dataclass
from enum import Enum
from functools import partial
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


class By(Enum):
    SMALL = 1
    LARGE = 2


@dataclass
class Settings:
    by: object


class Steps(list):
    scale = 1.0


class Holder:
    def __init__(self, held):
        self.held = held


class Slots:
    __slots__ = ("__hidden",)

    def __init__(self, held):
        self.__hidden = held


class OneSlot:
    __slots__ = "held"  # noqa: PLC0205

    def __init__(self, held):
        self.held = held


def steps(scale):
    made = Steps([1])
    made.scale = scale
    return made


def looped(held):
    made = Holder(held)
    made.itself = made
    return made


@pytest.mark.parametrize(
    "hold",
    [
        lambda n: n,
        lambda n: [{"a": (n,)}],
        lambda n: {n},
        lambda n: {n: 1},
        lambda n: range(n),
        lambda n: slice(n),
        lambda n: bytearray([n]),
        lambda n: np.float32(n),
        lambda n: np.array([None, n]),
        lambda n: np.array([("a", n)], dtype=[("name", "U1"), ("size", "i4")]),
        lambda n: np.random.default_rng(n),
        lambda n: torch.Generator().manual_seed(n),
        lambda n: torch.distributions.Normal(0.0, 1 + n * 1e-7),
        lambda n: collections.deque([n]),
        lambda n: collections.Counter(a=n),
        lambda n: SimpleNamespace(f=SimpleNamespace(n=n)),
        lambda n: By(n),
        lambda n: Settings(n),
        lambda n: Settings(torch.tensor(n)),
        steps,
        looped,
        Holder,
        Slots,
        OneSlot,
        lambda n: [0, n].index,
        lambda n: partial(print, sep=n),
        lambda n: weakref.ref(ALIVE[n]),
        lambda n: iter([0] * n),
        lambda n: torch.nn.Linear(n, 1, bias=False).requires_grad_(False)._parameters.keys() and n,
    ],
)
def test_objects_are_told_apart_by_what_they_hold(hold):
    assert key_of(Holder(hold(1))) == key_of(Holder(hold(1))) != key_of(Holder(hold(2)))
    assert not unreadable(hold(1))


ALIVE = {1: Holder(1), 2: Holder(2)}


def unreadable(*values):
    prints = Fingerprint()
    prints.of(*values)
    return prints.unreadable


def test_the_order_of_a_dictionary_counts_and_that_of_attributes_does_not():
    assert key_of([{"a": 1, "b": 2}]) != key_of([{"b": 2, "a": 1}])
    one, two = SimpleNamespace(a=1, b=2), Holder(1)
    two.more = 2
    three = Holder.__new__(Holder)
    three.more, three.held = 2, 1
    assert key_of(two) == key_of(three)
    assert key_of(one) == key_of(SimpleNamespace(a=1, b=2))


def test_locks_and_streams_do_not_count():
    held = [threading.Lock(), io.StringIO("a"), threading.Event()]
    assert key_of(held) == key_of([threading.Lock(), io.StringIO("b"), threading.Event()])
    assert not unreadable(held)


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
    [0.5, [0.5], {"a": 0.5}, np.array([0.5]), torch.tensor(0.5), Settings(0.5), By.LARGE, nn.ReLU,
     nn.ReLU(), [nn.Linear(1, 1)], lambda x: x, Holder(nn.ReLU())],
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

    assert key_of(made(1)) == key_of(made(1)) != key_of(made(2))
    assert not unreadable(made(1))


def test_a_traced_graph_counts():
    def made(by):
        net = Net()
        net.forward = lambda images: by * net.linear(images)
        return torch.fx.symbolic_trace(nn.Sequential(nn.Flatten(), nn.Hardtanh(-by, by)))

    assert key_of(made(1.0)) == key_of(made(1.0)) != key_of(made(2.0))


def hidden():
    yield 1


@pytest.mark.parametrize("value", [hidden(), Holder(hidden()), torch.ones(1, device="meta")])
def test_what_cannot_be_read_is_named(value):
    (name,) = unreadable(value)
    assert "generator" in name or "meta" in name
    assert not unreadable(Holder(1), Net(), si.pgd, torch.compile(Net()))


def test_values_that_are_deeply_nested_are_named():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert unreadable(deep) == {"a deeply nested value"}
