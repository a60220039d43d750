"""A row's key changes exactly when one of its numbers could."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer
import smoothinfer as si
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.store import Store
from tests.evaluation import planted_changes

PACKAGE = Path(smoothinfer.__file__).parent


def key_of(*values):
    """Content and code of values together."""
    prints = Fingerprint()
    return prints.of(*values), sorted(prints.code.items())


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """What an evaluation says of its stored rows after each planted change."""
    script = planted_changes.__file__
    command = [sys.executable, script, str(PACKAGE), str(tmp_path_factory.mktemp("planted"))]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("change", "anew", "reason"),
    [
        ("a sign in a ball", 1, "the code of smoothinfer has changed"),
        ("a default step size", 1, "the code of smoothinfer has changed"),
        ("a loss", 1, "the code of smoothinfer has changed"),
        ("the gate of attacks", 1, "the code of smoothinfer has changed"),
        ("the scale of a noise", 2, "the code of smoothinfer has changed"),
        ("the rounding of a verdict", 2, "the code of smoothinfer has changed"),
        ("the user's factory", 2, "the model"),
        ("a weight", 2, "the model has changed"),
    ],
)
def test_rows_are_computed_anew_after_a_change_of(change, anew, reason, planted):
    """Both units (clean and attacked), or the attacked one alone where only the attack changed."""
    assert planted["nothing"] == "status 0; "
    assert f"{anew} units are computed anew: {reason}" in planted[change], planted[change]
    taken_over = f"{2 - anew} stored units are taken over"
    assert (taken_over in planted[change]) == (anew < 2)


@pytest.mark.parametrize(
    "change", ["a docstring", "a comment", "the text of an error", "another attack"]
)
def test_rows_are_taken_over_after_a_change_of(change, planted):
    assert planted[change] == "status 0; 2 stored units are taken over"


def helper(images):
    return images + 0.1


def other_helper(images):
    return images + 0.2


class Shift:
    def __init__(self, size):
        self.size = size

    def attack(self, model, images, labels, ball, *, generator=None):
        return ball.project(images + self.size, images)


def attack(model, images, labels, ball, *, generator=None):
    return ball.project(helper(images), images)


def test_a_helper_of_an_own_attack_counts(monkeypatch):
    before = key_of(attack)
    assert key_of(attack) == before
    monkeypatch.setattr(sys.modules[__name__], "helper", other_helper)
    assert key_of(attack) != before


def test_the_state_of_a_bound_method_counts():
    assert key_of(Shift(0.1).attack) == key_of(Shift(0.1).attack)
    assert key_of(Shift(0.1).attack) != key_of(Shift(0.2).attack)


def test_what_a_closure_holds_counts():
    def make(size):
        def attack(model, images, labels, ball, *, generator=None):
            return ball.project(images + size, images)

        return attack

    assert key_of(make(0.1)) == key_of(make(0.1))
    assert key_of(make(0.1)) != key_of(make(0.2))


class Slotted:
    __slots__ = ("steps",)

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, model, images, labels, ball, *, generator=None):
        return si.pgd(model, images, labels, ball, steps=self.steps, generator=generator)


def test_what_slots_hold_counts():
    assert key_of(Slotted(1)) == key_of(Slotted(1))
    assert key_of(Slotted(1)) != key_of(Slotted(2))


def test_a_function_inside_a_function_counts():
    def nested(steps):
        return eval(f"lambda *given: (lambda: {steps})()")  # the inner function differs alone

    assert key_of(nested(1)) == key_of(nested(1))
    assert key_of(nested(1)) != key_of(nested(2))


@pytest.mark.parametrize("names", [{"__name__": "__main__"}, {}])
def test_functions_that_are_typed_into_an_interpreter_are_told_apart(names):
    def typed(number):
        world = dict(names)
        exec(f"def typed(x):\n    return x + {number}", world)
        return world["typed"]

    assert key_of(typed(1)) == key_of(typed(1))
    assert key_of(typed(1)) != key_of(typed(2))


def test_lambdas_are_told_apart():
    one, two = (lambda logits: logits), (lambda logits: 2 * logits)
    assert key_of(one) != key_of(two)


class Scaled(nn.Module):
    """A network with a plain attribute, a non-persistent buffer and an array."""

    def __init__(self, scale=1.0, offset=0.0, table=0.0):
        super().__init__()
        self.scale, self.table = scale, np.full(3, table)
        self.register_buffer("offset", torch.tensor(offset), persistent=False)

    def forward(self, images):
        return self.scale * images.flatten(1) + self.offset


def hook(module, args, output):
    return output + 1


def test_everything_that_a_module_holds_counts():
    plain = key_of(Scaled())
    assert key_of(Scaled()) == plain
    hooked, trained = Scaled(), Scaled().train(False)
    hooked.register_forward_hook(hook)
    others = [Scaled(scale=2.0), Scaled(offset=1.0), Scaled(table=1.0), hooked, trained]
    keys = [plain, *map(key_of, others)]
    assert len({repr(key) for key in keys}) == len(keys)


def test_the_method_of_a_module_counts(monkeypatch):
    before = key_of(Scaled())
    monkeypatch.setattr(Scaled, "forward", lambda self, images: images.flatten(1))
    assert key_of(Scaled()) != before


def test_parts_that_follow_from_the_rest_do_not_count(images):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    smooth = si.SmoothedClassifier(noisy, 4)
    before = key_of(noisy), key_of(smooth), key_of(noisy.member(0, 1))
    smooth.predict(images)  # makes a plan, samplers and a count of classes
    assert (key_of(noisy), key_of(smooth), key_of(noisy.member(0, 1))) == before
    assert key_of(noisy.member(0, 2)) != before[2]


def test_numbers_of_different_types_differ():
    assert len({key_of(value)[0] for value in (1, 1.0, True, "1", None, [1], (1, 2))}) == 7


def test_values_that_hold_themselves_end():
    loop = [1]
    loop.append(loop)
    assert key_of(loop) == key_of(loop)


def prepared(folder, attack=si.pgd, **options):
    images = torch.linspace(0, 1, 256).reshape(4, 1, 8, 8)
    with si.isolated_rng(0):
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    smooth = si.SmoothedClassifier(si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval(), 4)
    data = images, torch.tensor([0, 1, 2, 0])
    work = prepare(smooth, data, attack={"own": attack}, **options)
    return Runner([work], Store(folder))


def test_new_settings_are_not_called_changed(tmp_path):
    prepared(tmp_path).run()
    assert prepared(tmp_path).reuse() == ["2 stored units are taken over"]
    assert prepared(tmp_path, seed=1).reuse() == []
    again = prepared(tmp_path, attack=partial(si.pgd, steps=3)).reuse()
    assert again == [
        "1 stored units are taken over",
        "1 units are computed anew: the attack has changed since they were stored",
    ]


def test_a_wider_ball_leaves_clean_rows_as_they_are(tmp_path):
    prepared(tmp_path).run()
    assert prepared(tmp_path, ball=si.Linf(0.2)).reuse() == ["1 stored units are taken over"]
