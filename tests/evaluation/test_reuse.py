"""The terminal says which rows are taken over, which are computed anew, and why."""

import json
from functools import partial

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.evaluation import makers
from smoothinfer.evaluation.certified_rows import certify_rows
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.makers import maker
from smoothinfer.evaluation.runner import Runner
from smoothinfer.evaluation.store import Store
from smoothinfer.numerics.precision import VARIABLE
from tests.conftest import line

DIGITS = si.load_data("digits", "test", 4)


def runner_of(folder, data=DIGITS, net=None, **options):
    noisy = si.NoisyModel(net or line(), inputs=si.Gaussian(0.05)).eval()
    given = {"attack": {"own": si.fgsm}, "ball": si.Linf(0.1), "samples": [2]} | options
    return Runner([prepare(noisy, data, **given)], Store(folder))


def anew(count, reason):
    return f"{count} units are computed anew: {reason} changed since they were stored"


def test_every_reason_is_named(tmp_path, monkeypatch):
    runner_of(tmp_path).run()
    images = DIGITS.images.clone()
    images[0, 0, 0, 0] += 0.5
    assert runner_of(tmp_path).reuse() == ["2 stored units are taken over"]
    assert runner_of(tmp_path, net=nn.Sequential(line())).reuse() == [anew(2, "the model has")]
    other = runner_of(tmp_path, attack={"own": partial(si.fgsm, draws=2)})
    assert other.reuse()[1:] == [anew(1, "the attack has")]
    assert runner_of(tmp_path, (images, DIGITS.labels)).reuse() == [anew(2, "the images have")]
    monkeypatch.setenv(VARIABLE, "bf16")
    assert runner_of(tmp_path).reuse() == [anew(2, "the precision has")]


def test_the_reason_is_found_for_attacks_with_long_names(tmp_path):
    name = f"pgd({'x' * 400})"
    runner_of(tmp_path, attack={name: si.fgsm}).run()
    other = runner_of(tmp_path, attack={name: partial(si.fgsm, draws=2)})
    assert other.reuse()[1:] == [anew(1, "the attack has")]


def test_rows_of_another_computer_are_taken_over_and_named(tmp_path, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(makers, "computer", lambda: "torch 1.0, an abacus")
        runner_of(tmp_path).run()
    (said,) = runner_of(tmp_path).reuse()
    assert said.startswith("2 stored units are taken over, made by smoothinfer")
    assert said.endswith("torch 1.0, an abacus")


def test_shards_name_what_made_them(tmp_path):
    runner = runner_of(tmp_path)
    runner.run()
    (made_by,) = runner.store.makers(runner.works)
    assert made_by == maker() | {"units": 2}
    assert made_by["version"] == makers.version("smoothinfer")


def test_shards_of_before_are_unknown_makers(tmp_path):
    rows = runner_of(tmp_path)
    rows.run()
    table = rows.rows().replace_schema_metadata({"computer": "an abacus"})
    store = Store(tmp_path / "old")
    store.write("own-000000-0", table)
    (made_by,) = store.makers(["own-000000-0"])
    assert made_by["version"] == made_by["code"] == "unknown"
    assert made_by["computer"] == "an abacus"


def certified(folder, model, data=DIGITS, **options):
    lines = []
    rows = certify_rows(model, data, out=folder, samples=50, tell=lines.append, **options)
    return rows, lines


def test_certificates_follow_what_they_depend_on(tmp_path, monkeypatch):
    def noisy(by=1.0):
        net = nn.Sequential(line(), nn.Hardtanh(-by, by))
        return si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()

    rows, lines = certified(tmp_path, noisy())
    assert lines == []
    again, lines = certified(tmp_path, noisy())
    assert lines == ["1 stored units are taken over"]
    assert again.equals(rows)
    (made_by,) = json.loads(again.schema.metadata[b"made_by"])
    assert made_by == maker() | {"units": 1}
    assert certified(tmp_path, noisy(2.0))[1] == [anew(1, "the model has")]
    labels = DIGITS.labels.flip(0)
    relabelled = si.ImageData("digits", DIGITS.pixels, labels, DIGITS.classes)
    assert certified(tmp_path, noisy(), relabelled)[1] == [anew(1, "the images have")]
    monkeypatch.setattr("smoothinfer.smoothing.radii_test._GROWTH", 1.5)
    (line_,) = certified(tmp_path, noisy(), radii=[0.01])[1] or [""]
    assert line_ == ""  # another setting, of which nothing is stored
    assert certified(tmp_path, noisy())[1] == [anew(1, "the code of smoothinfer has")]


def test_more_images_leave_the_certificates_of_the_first_as_they_are(tmp_path):
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.1)).eval()
    data = si.load_data("digits", "test", 40, first=True)
    certified(tmp_path, noisy, data[torch.arange(32)])
    assert certified(tmp_path, noisy, data)[1] == ["1 stored units are taken over"]


def test_damaged_certificates_are_found_before_any_work(tmp_path, monkeypatch):
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.1)).eval()
    certified(tmp_path, noisy)
    (shard,) = tmp_path.glob("*.parquet")
    shard.write_bytes(b"nothing")
    with pytest.raises(si.InputError, match="is damaged"):
        certified(tmp_path, noisy)
