"""A key follows the code of an attack through all ways in which it can use other code."""

import functools
import types
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize

import smoothinfer as si
from smoothinfer.attacks import gate
from smoothinfer.evaluation import code_walk, origins
from tests.evaluation.user_files import key_of, key_of_attack, written

HEAD = "import torch\nimport smoothinfer as si\n"
USE = "def attack(model, images, labels, ball, *, generator=None):\n    return {}\n"

# What the attack uses, in mine.py and helpers.py; 0.1 becomes 0.2 in one of them.
WAYS = {
    "a constant": "EPS = 0.1\n" + USE.format("images + EPS"),
    "a helper": "def shift(x):\n    return x + 0.1\n" + USE.format("shift(images)"),
    "a lambda": "shift = lambda x: x + 0.1\n" + USE.format("shift(images)"),
    "a default": "def shift(x, by=0.1):\n    return x + by\n" + USE.format("shift(images)"),
    "a default from a constant": "EPS = 0.1\ndef shift(x, by=EPS):\n    return x + by\n"
    + USE.format("shift(images)"),
    "a partial": "from functools import partial\nINNER = partial(si.pgd, step_size=0.1)\n"
    + USE.format("INNER(model, images, labels, ball)"),
    "a closure": "def make(by):\n    return lambda x: x + by\nshift = make(0.1)\n"
    + USE.format("shift(images)"),
    "a class": "class Shift:\n    def run(self, x):\n        return x + 0.1\n"
    + USE.format("Shift().run(images)"),
    "a class's attribute": "class Shift:\n    by = 0.1\n" + USE.format("images + Shift.by"),
    "a class's tensor": "class Shift:\n    by = torch.tensor(0.1)\n"
    + USE.format("images + Shift.by"),
    "a base class": "class Base:\n    def run(self, x):\n        return x + 0.1\n"
    "class Shift(Base):\n    pass\n" + USE.format("Shift().run(images)"),
    "a property": "class Shift:\n    @property\n    def by(self):\n        return 0.1\n"
    + USE.format("images + Shift().by"),
    "a static method": "class Shift:\n    @staticmethod\n    def run(x):\n        return x + 0.1\n"
    + USE.format("Shift.run(images)"),
    "a metaclass": "class Meta(type):\n    def run(cls, x):\n        return x + 0.1\n"
    "class Shift(metaclass=Meta):\n    pass\n" + USE.format("Shift.run(images)"),
    "a bound method": "class Shift:\n    def __init__(self, by):\n        self.by = by\n"
    "    def run(self, x):\n        return x + self.by\nrun = Shift(0.1).run\n"
    + USE.format("run(images)"),
    "a dataclass": "from dataclasses import dataclass\n@dataclass\nclass Shift:\n    by: float = 0.1\n"
    + USE.format("images + Shift().by"),
    "a default factory": "from dataclasses import dataclass, field\n@dataclass\nclass Shift:\n"
    "    by: list = field(default_factory=lambda: [0.1])\n" + USE.format("images + Shift().by[0]"),
    "an enum": "from enum import Enum\nclass By(Enum):\n    SMALL = 0.1\n"
    + USE.format("images + By.SMALL.value"),
    "a named tuple": "from typing import NamedTuple\nclass By(NamedTuple):\n    size: float = 0.1\n"
    + USE.format("images + By().size"),
    "a list": "BY = [[0.1]]\n" + USE.format("images + BY[0][0]"),
    "an array": "import numpy as np\nBY = np.array([0.1])\n" + USE.format("images + BY[0]"),
    "a tensor": "BY = torch.tensor([0.1])\n" + USE.format("images + BY"),
    "a namespace": "from types import SimpleNamespace\nBY = SimpleNamespace(size=[0.1])\n"
    + USE.format("images + BY.size[0]"),
    "a deque": "from collections import deque\nBY = deque([0.1])\n" + USE.format("images + BY[0]"),
    "a fraction": "from decimal import Decimal\nBY = Decimal('0.1')\n"
    + USE.format("images + float(BY)"),
    "a bound builtin": "BY = {'size': 0.1}.get\n" + USE.format("images + BY('size')"),
    "a distribution": "NOISE = torch.distributions.Normal(0.0, 0.1)\n"
    + USE.format("images + NOISE.sample(images.shape)"),
    "a generator": "RANDOM = torch.Generator().manual_seed(int(10 * 0.1))\n"
    + USE.format("images + torch.rand(1, generator=RANDOM)"),
    "a network of torch": "NET = torch.nn.Linear(1, 1)\ntorch.nn.init.constant_(NET.weight, 0.1)\n"
    "torch.nn.init.zeros_(NET.bias)\n" + USE.format("images + NET(images)"),
    "a decorator": "import functools\ndef stronger(attack):\n    @functools.wraps(attack)\n"
    "    def run(*a, **k):\n        return attack(*a, **k) + 0.1\n    return run\n@stronger\n"
    + USE.format("images"),
    "behind a decorator": "import functools\ndef plain(attack):\n    @functools.wraps(attack)\n"
    "    def run(*a, **k):\n        return attack(*a, **k)\n    return run\n@plain\n"
    + USE.format("images + 0.1"),
    "a cached function": "import functools\n@functools.lru_cache\ndef by(n):\n    return n + 0.1\n"
    + USE.format("images + by(1)"),
    "a context manager": "import contextlib\n@contextlib.contextmanager\ndef by():\n    yield 0.1\n"
    "def attack(model, images, labels, ball):\n    with by() as size:\n        return images + size\n",
    "no gradients": "@torch.no_grad()\ndef shift(x):\n    return x + 0.1\n"
    + USE.format("shift(images)"),
    "an inner function": USE.format("(lambda: images + 0.1)()"),
    "a function's attribute": "def shift(x):\n    return x + shift.by\nshift.by = 0.1\n"
    + USE.format("shift(images)"),
    "an autograd function": "class Shift(torch.autograd.Function):\n    @staticmethod\n"
    "    def forward(ctx, x):\n        return x + 0.1\n    @staticmethod\n"
    "    def backward(ctx, g):\n        return g\n" + USE.format("Shift.apply(images)"),
    "the names of the globals": "EPS = 0.1\n" + USE.format("images + globals()['EPS']"),
    "eval": "EPS = 0.1\n" + USE.format("images + eval('EPS')"),
    "the error of a fault": "class Found(Exception):\n    pass\ndef search():\n"
    "    raise Found(0.1)\ndef attack(model, images, labels, ball):\n    try:\n        search()\n"
    "    except Found as found:\n        return images + found.args[0]\n",
    "torch.vmap": "def shift(x):\n    return x + 0.1\nmany = torch.vmap(shift)\n"
    + USE.format("many(images)"),
    "a compiled function": "@torch.compile\ndef shift(x):\n    return x + 0.1\n"
    + USE.format("shift(images)"),
    "a scripted function": "@torch.jit.script\ndef shift(x):\n    return x + 0.1\n"
    + USE.format("shift(images)"),
    "a path": "from pathlib import Path\nBY = Path('/data/0.1')\n" + USE.format("BY"),
}
HELPER = "EPS = 0.1\ndef shift(x):\n    return x + EPS\n"
# How mine.py comes to the helper of helpers.py.
IMPORTS = {
    "a name": "from helpers import shift\n" + USE.format("shift(images)"),
    "another name": "from helpers import shift as move\n" + USE.format("move(images)"),
    "the module": "import helpers\n" + USE.format("helpers.shift(images)"),
    "the module under another name": "import helpers as h\n" + USE.format("h.shift(images)"),
    "a constant of the module": "import helpers\n" + USE.format("images + helpers.EPS"),
    "inside the function": USE.format("None").replace("return None", "import helpers as h\n"
    "    return h.shift(images)"),
    "a name inside the function": USE.format("None").replace("return None",
    "from helpers import shift as move\n    return move(images)"),
    "by a text": "from importlib import import_module\n"
    + USE.format("import_module('helpers').shift(images)"),
    "by the name of an attribute": "import helpers\n"
    + USE.format("getattr(helpers, 'sh' + 'ift')(images)"),
    "a module in a variable": "import helpers\n" + USE.format("None").replace("return None",
    "h = helpers\n    return h.shift(images)"),
    "a module in a closure": "import helpers\ndef make(h):\n    return lambda m, x, *a, **k: "
    "h.shift(x)\nattack = make(helpers)\n",
    "a list of functions": "from helpers import shift\nALL = [shift]\n" + USE.format("ALL[0](images)"),
    "a partial": "import functools, helpers\nattack = functools.partial(helpers.shift)\n",
    "a callable object": "from helpers import shift\nclass Run:\n    def __init__(self):\n"
    "        self.inner = shift\n    def __call__(self, *a):\n        return self.inner(a[1])\n"
    "attack = Run()\n",
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_an_attack_changes_with(way, tmp_path):
    text = HEAD + WAYS[way]
    assert text.count("0.1") == 1
    before = key_of_attack(tmp_path, mine=text)
    assert key_of_attack(tmp_path, mine=text) == before
    assert key_of_attack(tmp_path / "moved", mine=text) == before
    assert key_of_attack(tmp_path, mine=text.replace("0.1", "0.2")) != before


@pytest.mark.parametrize("way", IMPORTS)
def test_an_attack_changes_with_a_helper_that_it_imports_as(way, tmp_path):
    files = {"mine": HEAD + IMPORTS[way], "helpers": HELPER}
    before = key_of_attack(tmp_path, **files)
    assert key_of_attack(tmp_path / "moved", **files) == before
    other = files | {"helpers": HELPER.replace("0.1", "0.2")}
    assert key_of_attack(tmp_path, **other) != before


@pytest.mark.parametrize("form", ["from .sub import helpers", "from .sub.helpers import shift"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_helper_of_a_package_counts(form, inside, tmp_path):
    call = "helpers.shift(images)" if form.endswith("helpers") else "shift(images)"
    use = USE.format(call)
    text = use.replace("return", f"{form}\n    return") if inside else f"{form}\n{use}"
    keys = []
    for name, number in (("one", "0.1"), ("two", "0.1"), ("three", "0.2")):
        folder = tmp_path / name / "pack"
        (folder / "sub").mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "sub" / "__init__.py").write_text("")
        (folder / "sub" / "helpers.py").write_text(HELPER.replace("0.1", number))
        (folder / "mine.py").write_text(text)
        with written(tmp_path / name) as load:
            keys.append(key_of(load("pack.mine").attack))
    assert keys[0] == keys[1] != keys[2]


SAME = '''"""A module."""
import numpy as np
import os
from pathlib import Path
from scipy.stats import norm
from random import random
HERE = Path(__file__).parent
WEIGHTS = os.path.join(os.path.dirname(__file__), "weights.npy")
UNUSED = 1


def shift(x: "Images") -> "Images":
    """Shift images."""
    assert x.ndim, "no image"
    if len(x) > 1e9:
        raise ValueError("too many")
    return x + 0.1  # a grey level


def attack(model, images, labels, ball, *, generator=None):
    """Attack."""
    return shift(images) + norm.cdf(0.5) + 0 * random() + ({"b", "a"} == {HERE, WEIGHTS})


def unused():
    return 1
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Shift images.", "Move pictures."),
        ("  # a grey level", ""),
        ('"Images"', '"Pictures"'),
        ("too many", "a lot of images"),
        ("no image", "nothing"),
        ("x + 0.1", "(x  +  0.1)"),
        ("UNUSED = 1", "UNUSED = 2\n\n\n"),
        ("    return 1\n", "    return 2\n"),
    ],
)
def test_an_attack_stays_the_same_after(old, new, tmp_path):
    assert SAME.count(old) in (1, 2)
    before = key_of_attack(tmp_path, mine=SAME)
    assert key_of_attack(tmp_path, mine=SAME.replace(old, new)) == before
    assert key_of_attack(tmp_path / "moved", mine=SAME.replace(old, new)) == before


def test_a_file_that_was_edited_after_it_was_loaded_is_not_taken_for_its_code(tmp_path):
    """Rows of the old code would be taken over for the new."""
    one = HEAD + USE.format("images + 0.1")
    other = HEAD + USE.format("images + 0.2")
    with written(tmp_path, mine=one) as load:
        running = load("mine").attack
        (tmp_path / "mine.py").write_text(other)
        edited = key_of(running)
    assert edited != key_of_attack(tmp_path, mine=other)


def executed(text, **names):
    world = {"__name__": "somewhere"} | names
    exec(text, world)
    return world


NETWORK = """
import torch
class Net(torch.nn.Module):
    def forward(self, images):
        return images.flatten(1) * SCALE + 0.1
"""


def test_a_network_that_was_executed_from_a_string_counts():
    one, same, two, three = (
        executed(text, SCALE=scale)["Net"]()
        for text, scale in ((NETWORK, 1), (NETWORK, 1), (NETWORK.replace("0.1", "0.2"), 1), (NETWORK, 2))
    )  # fmt: skip
    assert key_of(one) == key_of(same)
    assert len({str(key_of(net)) for net in (one, two, three)}) == 3


def test_two_classes_of_one_name_are_told_apart():
    nets = [executed(NETWORK.replace("0.1", by), SCALE=1)["Net"]() for by in ("0.1", "0.2")]
    keys = [key_of(nn.ModuleList(pair)) for pair in (nets, nets[::-1], nets[:1] * 2, nets[1:] * 2)]
    assert len({str(key) for key in keys}) == 4


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
    ("place", "name"), [(nn.Linear, "forward"), (F, "linear"), (torch, "relu"), (torch.Tensor, "add")]
)  # fmt: skip
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


def test_the_gate_of_an_attack_is_a_part_of_it(monkeypatch):
    """Every attack is a function inside the gate, which itself holds the attack."""
    before = key_of(si.pgd)
    names = [name for name, _ in before[2]]
    assert any("gate.gated.<locals>.behind_gate" in name for name in names)
    assert "smoothinfer.attacks.gate._check" in names
    assert "smoothinfer.attacks.projected_gradient.pgd" in names
    monkeypatch.setattr(gate, "plain_images", lambda model, images: images.half())
    assert key_of(si.pgd) != before


def test_the_default_of_a_gated_attack_counts(monkeypatch):
    before = key_of(si.pgd)
    inner = si.pgd.__wrapped__
    monkeypatch.setitem(inner.__kwdefaults__, "steps", inner.__kwdefaults__["steps"] + 1)
    assert key_of(si.pgd) != before


def test_the_code_of_an_installed_library_counts_by_all_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(origins, "_INSTALLED", (*origins._INSTALLED, f"{tmp_path}/"))
    for cached in (origins.is_own, origins.library_digest):
        monkeypatch.setattr(origins, cached.__name__, cached.__wrapped__)
        monkeypatch.setattr(code_walk, cached.__name__, cached.__wrapped__)
    keys = []
    for number in ("0.1", "0.2"):
        folder = tmp_path / "libraryx"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").write_text("from .inner import attack\n")
        (folder / "inner.py").write_text("from .deep import BY\n" + USE.format("images + BY"))
        (folder / "deep.py").write_text(f"BY = {number}\n")
        with written(tmp_path) as load:
            keys.append(key_of(load("libraryx").attack))
    assert dict(keys[0][2]).keys() == {"libraryx"}
    assert keys[0] != keys[1]


def test_no_path_of_this_computer_is_in_the_code():
    names = " ".join(name for name, _ in key_of(si.pgd, Net())[2])
    assert str(Path.cwd()) not in names
