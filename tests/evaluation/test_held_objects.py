"""Objects are told apart by what they hold; what nobody can look into is named."""

import collections
import io
import threading
import weakref
from dataclasses import dataclass
from enum import Enum
from functools import partial
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.fingerprint import Fingerprint
from tests.evaluation.user_files import key_of, key_of_attack


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
    __slots__ = "held"

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
        lambda n: collections.defaultdict([n].copy),
        lambda n: MappingProxyType({"a": n}),
        lambda n: np.ma.array([0, 0], mask=[True, n == 1]),
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


def hidden():
    yield 1


class Broken(collections.UserDict):
    def __iter__(self):
        raise OSError("it is gone")


@pytest.mark.parametrize(
    "value", [hidden(), Holder(hidden()), torch.ones(1, device="meta"), Broken(a=1)]
)
def test_what_cannot_be_read_is_named(value):
    (name,) = unreadable(value)
    assert "generator" in name or "Tensor" in name or "Broken" in name
    assert not unreadable(Holder(1), nn.ReLU(), si.pgd, torch.compile(nn.ReLU()))


def test_values_that_are_deeply_nested_are_named():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert unreadable(deep) == {"a deeply nested value"}


def test_objects_that_all_hold_each_other_take_no_time():
    def ring(last):
        nodes = [Holder(number) for number in range(30)]
        for node in nodes:
            node.others = nodes
        nodes[-1].held = last
        return nodes

    assert key_of(ring(1)) == key_of(ring(1)) != key_of(ring(2))


def test_code_may_use_other_code_in_long_chains(tmp_path):
    """Python's own limit is 1,000 calls within calls."""
    text = "".join(f"def f{k}(x):\n    return f{k + 1}(x)\n" for k in range(2000))
    text += "def f2000(x):\n    return x + 0.1\nattack = f0\n"
    before = key_of_attack(tmp_path, mine=text)
    assert key_of_attack(tmp_path, mine=text.replace("0.1", "0.2")) != before
