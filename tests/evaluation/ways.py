"""Ways in which an attack of a user can use other code."""

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
    "a dataclass": "from dataclasses import dataclass\n@dataclass\nclass Shift:\n"
    "    by: float = 0.1\n" + USE.format("images + Shift().by"),
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
    "def attack(model, images, labels, ball):\n    with by() as size:\n"
    "        return images + size\n",
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
    "a list of functions": "from helpers import shift\nALL = [shift]\n"
    + USE.format("ALL[0](images)"),
    "a partial": "import functools, helpers\nattack = functools.partial(helpers.shift)\n",
    "a callable object": "from helpers import shift\nclass Run:\n    def __init__(self):\n"
    "        self.inner = shift\n    def __call__(self, *a):\n        return self.inner(a[1])\n"
    "attack = Run()\n",
}  # fmt: skip
