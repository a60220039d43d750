"""Keys of units: by batch, the same in every process, never the same for what cannot be read."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.certified_rows import certify_rows
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.keys import number_formats
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.store import Store
from smoothinfer.numerics.precision import VARIABLE
from tests.conftest import line

DIGITS = si.load_data("digits", "test", 300)


def work_of(data=DIGITS, net=None, **options):
    noisy = si.NoisyModel(net or line(), inputs=si.Gaussian(0.05)).eval()
    given = {"attack": "fgsm", "ball": si.Linf(0.1), "samples": [2]} | options
    return prepare(noisy, data, **given)


def units(**options):
    return list(work_of(**options).units)


def runner_of(folder, data=DIGITS, **options):
    return Runner([work_of(data, **options)], Store(folder))


def changed(pixels, image):
    other = pixels.clone()
    other[image, 0, 0, 0] += 1
    return other


def test_a_unit_depends_on_the_images_of_its_batch_alone():
    before = units()
    other = units(data=replace(DIGITS, pixels=changed(DIGITS.pixels, 130)))
    assert [a == b for a, b in zip(before, other, strict=True)] == [True, False, True] * 2
    more = units(data=replace(DIGITS, pixels=DIGITS.pixels[:256], labels=DIGITS.labels[:256]))
    assert set(more) < set(before)


def test_labels_and_order_count_and_names_do_not():
    before, last = units(), torch.arange(len(DIGITS)).flip(0)
    labels = DIGITS.labels.clone()
    labels[0] = (labels[0] + 1) % 10
    assert units(data=replace(DIGITS, labels=labels)) != before
    assert not set(units(data=DIGITS[last])) & set(before)
    classes = tuple(f"number {k}" for k in range(10))
    assert units(data=replace(DIGITS, name="others", classes=classes)) == before
    assert units(data=(DIGITS.images, DIGITS.labels)) == before


def test_settings_count():
    before = units(describe={"a": 1, "b": 2})
    assert units(describe={"b": 2, "a": 1}) == before
    changes = [
        {"describe": {"a": 2, "b": 2}},
        {"samples": [3]},
        {"seed": 1},
        {"rules": ["soft"]},
        {"stop": "exact"},
        {"ball": si.Linf(0.2)},
        {"attack": {"fgsm": partial(si.fgsm, draws=2)}},
        {"target": line()},
        {"net": nn.Sequential(line(), nn.Identity())},
    ]
    keys = [units(**{"describe": {"a": 1, "b": 2}} | change)[-1] for change in changes]
    assert len({before[-1], *keys}) == 1 + len(changes)


def test_the_precision_counts(monkeypatch):
    before = units()
    monkeypatch.setenv(VARIABLE, "bf16")
    assert not set(units()) & set(before)
    monkeypatch.setenv(VARIABLE, "fp32")
    assert units() == before
    explicit = si.SmoothedClassifier(work_of().classifier.model, 2, precision="fp32")
    again = prepare(explicit, DIGITS, attack="fgsm", ball=si.Linf(0.1), samples=[2])
    assert list(again.units) == before  # it is the same precision by another name


def test_the_formats_of_torch_count():
    cpu = torch.device("cpu")
    before = number_formats("fp32", cpu)
    torch.set_float32_matmul_precision("medium")
    try:
        assert number_formats("fp32", cpu) != before
    finally:
        torch.set_float32_matmul_precision("highest")
    with torch.autocast("cpu", torch.bfloat16):
        assert number_formats("fp32", cpu) != before
    torch.set_default_dtype(torch.float64)
    try:
        assert number_formats("fp32", cpu) != before
    finally:
        torch.set_default_dtype(torch.float32)
    assert number_formats("fp32", cpu) == before


def test_threads_do_not_count():
    before, threads = units(), torch.get_num_threads()
    torch.set_num_threads(1 + threads)
    try:
        assert units() == before
    finally:
        torch.set_num_threads(threads)


USER = """
import json, sys
{imports}
import user
print(json.dumps(user.keys()))
"""
MODULE = """
import enum
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation.certified_rows import _common_key
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.networks import resnet20

HERE = Path(__file__).parent
NAMES = {"b", "a", "c"}
TABLE = {name: len(name) for name in sorted(NAMES)}
WEIGHTS = os.path.join(os.path.dirname(__file__), "w.npy")


class Size(enum.Enum):
    SMALL = 1


@dataclass(frozen=True)
class Options:
    size: Size = Size.SMALL
    names: frozenset = frozenset(NAMES)


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx, g):
        return g


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.options, self.names = resnet20(channels=1), Options(), set(NAMES)
        with torch.no_grad():
            for each in self.parameters():
                each.fill_(0.01)
        self.net.register_forward_hook(lambda module, args, output: output)

    def forward(self, images):
        return self.net(Clip.apply(images)) if {"x", "y", "z"} else HERE


def attack(model, images, labels, ball, *, generator=None):
    from others import by
    return images + TABLE["a"] + by() + (WEIGHTS in {"u", "v", "w"})


def keys():
    noisy = si.NoisyModel(Own(), inputs=si.Gaussian(0.1), weights=si.CNI(rank=1)).eval()
    with torch.no_grad():
        for each in noisy.weight_noises.parameters():
            each.fill_(0.01)
    data = si.load_data("digits", "test", 4)
    attacks = {"own": attack, **{name: si.ATTACKS[name] for name in ("pgd", "square", "apgd")}}
    work = prepare(noisy, data, attack=attacks, samples=[2])
    examples = [work.keys.of_examples(name, 0) for name in attacks]
    return [*work.units, *examples, _common_key(noisy, {})]
"""


def test_keys_are_the_same_in_every_process_and_folder(tmp_path):
    found = []
    orders = ("import smoothinfer.workflows.sweep, scipy.stats", "import others, smoothinfer")
    for number, imports in enumerate(orders):
        folder = tmp_path / f"number {number}"
        folder.mkdir()
        (folder / "user.py").write_text(MODULE)
        (folder / "others.py").write_text("BY = 0.5\ndef by():\n    return BY\n")
        source = str(Path(si.__file__).parents[1])
        environment = os.environ | {"PYTHONHASHSEED": str(number), "PYTHONPATH": source}
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, '.')\n{USER}"]
        command[-1] = command[-1].format(imports=imports)
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=folder
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert len(found[0]) == 10
    assert found[0] == found[1]


class Hides(nn.Module):
    """It holds a generator, into which nobody can look."""

    def __init__(self):
        super().__init__()
        self.net, self.steps = line(), (number for number in range(3))

    def forward(self, images):
        return self.net(images)


def test_what_cannot_be_read_is_computed_anew_each_time(tmp_path):
    data = DIGITS[torch.arange(4)]
    for _ in range(2):
        runner = runner_of(tmp_path, data, net=Hides())
        assert runner.reuse() == [
            "2 units are computed anew each time: an object of builtins.generator cannot be read"
        ]
        runner.run()
        assert runner.rows().num_rows == 8
        assert runner.reuse() == ["2 stored units are taken over"]  # of this very evaluation
    assert len(list(tmp_path.glob("*.parquet"))) == 4
    with pytest.raises(si.InputError, match=r"generator cannot be read.*without --shard"):
        Runner([work_of(data, net=Hides())], Store(tmp_path), (0, 2))


def test_examples_and_certificates_of_what_cannot_be_read_are_made_anew(tmp_path):
    data, crafted = DIGITS[torch.arange(4)], tmp_path / "crafted"
    for _ in range(2):
        work_of(data, net=Hides(), cache=crafted).examples("fgsm", 0)
        noisy = si.NoisyModel(Hides(), inputs=si.Gaussian(0.1)).eval()
        lines = []
        certify_rows(noisy, data, out=tmp_path / "rows", samples=50, tell=lines.append)
        assert len(lines) == 1
        assert "computed anew each time" in lines[0]
    assert len(list(crafted.iterdir())) == 2
    assert len(list((tmp_path / "rows").glob("*.parquet"))) == 2


def test_an_example_is_made_anew_where_helper_precision_or_hook_changed(tmp_path, monkeypatch):
    def key():
        return work_of(cache=tmp_path).keys.of_examples("fgsm", 0)

    before = key()
    assert key() == before
    monkeypatch.setenv(VARIABLE, "bf16")
    assert key() != before
    monkeypatch.setenv(VARIABLE, "fp32")
    monkeypatch.setattr("smoothinfer.attacks.gate.own_tensor", lambda tensor: tensor.clone())
    assert key() != before
