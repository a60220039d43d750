"""The benchmarks run; how fast is for them to say."""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from benchmarks import attacks, behaviour, certificates, grid, paired, verdicts
from benchmarks.speed import SECTIONS, Benchmarks, table
from benchmarks.subject import network
from scipy.stats import norm

import smoothinfer as si
from smoothinfer.smoothing.classifier import SmoothedClassifier


@pytest.mark.parametrize("section", [name for name in SECTIONS if "one_image" not in name])
def test_every_case_of_a_section_runs(section):
    options = argparse.Namespace(images=2, samples=2, device="cpu", precision="fp32")
    cases, flop = getattr(Benchmarks(options), section)()
    assert {"naive loop", "smoothinfer"} <= set(cases)
    assert flop > 0
    for run in cases.values():
        run()
    timing = {"median": 2.0, "fastest": 1.0, "slowest": 3.0}
    found = {"description": section, "flop": flop, "cases": dict.fromkeys(cases, timing)}
    assert table(found, {"fp32": 1e9}).count("| 1.00 |") == len(cases)


def test_growth_stopping_and_agreement_are_measured(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = si.NoisyModel(network(), inputs=si.Gaussian(0.1), weights=si.PNI()).eval()
    labels = torch.arange(4) % 10
    data = si.ImageData(
        "pictures",
        torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8),
        labels,
        tuple("abcdefghij"),
    )
    monkeypatch.setattr(verdicts, "_model_and_data", lambda _, __: (model, data.images, labels))
    options = argparse.Namespace(
        images=4, samples=2, points=2, naive_passes=1, sigma=0.0, verdicts=4
    )
    monkeypatch.setattr(
        verdicts.si, "SmoothedClassifier", lambda m, n, **o: SmoothedClassifier(m, min(n, 20), **o)
    )
    stops = [f"{stop}, {part}" for part in ("clean", "attacked") for stop in ("ppr", "value")]
    assert list(verdicts.stopping(options)) == stops
    found = verdicts.agreement(options)
    assert 0 <= found["agreement"] <= 1
    assert behaviour.epoch(argparse.Namespace(batch=2, steps=3))["seconds a step"] > 0
    monkeypatch.setattr(behaviour, "_vote", lambda *_: lambda: None)
    grown = behaviour.linear(options)
    assert set(grown) == {"images", "passes"}
    text = behaviour.report({"linear": {"machine": {}, "options": {}, **grown}})
    assert "| images, exponent |" in text


def test_a_sweep_is_compared_with_its_cells(monkeypatch):
    monkeypatch.setattr(grid, "PASSES", [1, 2])
    pixels = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    data = si.ImageData("pictures", pixels, torch.tensor([0, 1]), tuple("abcdefghij"))
    monkeypatch.setattr(grid.si, "load_data", lambda *_, **__: data)
    options = argparse.Namespace(
        model="benchmarks.subject:cni", data="", grid_images=2, sigma=0.1, naive_passes=1
    )
    found = grid.sweep(options)
    assert found["cells"] == 6
    assert found["times its largest run"] > 0


def test_attacks_are_compared_with_other_tools(monkeypatch):
    monkeypatch.setattr(attacks.si, "load", lambda _: si.NoisyModel(network()).eval())
    options = {
        "model": "m",
        "shape": (3, 32, 32),
        "classes": 10,
        "queries": 2,
        "batch": 2,
        "radius": 0.1,
    }
    subject = attacks.Attacks(argparse.Namespace(**options))
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
    sections = {}
    for name in ("pgd", "square", "ddn"):
        runs = getattr(subject, name)()
        assert "smoothinfer" in runs
        rows = {tool: subject.measure(run, images, labels) for tool, run in runs.items()}
        sections[name] = {"description": name, "tools": rows}
    found = {"model": "m", "machine": {}, "peers": {}, "sections": sections}
    assert attacks.table(found).count("| smoothinfer |") == 3


def test_a_random_model_is_not_compared_with_tools_for_models_without_noise(monkeypatch):
    noisy = si.NoisyModel(network(), weights=si.PNI()).eval()
    monkeypatch.setattr(attacks.si, "load", lambda _: noisy)
    with pytest.raises(SystemExit, match="is random"):
        attacks.Attacks(argparse.Namespace(model="noisy", radius=0.1))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_passes():
    """In processes of their own; half a minute."""
    found = behaviour.memory(argparse.Namespace(images=2))
    assert found["growth"] < 0.1


def test_a_fixed_number_of_passes_contradicts_false_certificates_alone():
    shares, sigma, alpha = (0.45, 0.25, 0.2, 0.1), 0.5, 0.05  # pA below 1/2, and yet a radius
    truth = sigma / 2 * (norm.ppf(shares[0]) - norm.ppf(shares[1]))
    counts = np.random.default_rng(0).multinomial(400, shares, 2000).tolist()
    bounds = [certificates.largest(each, 0, sigma, alpha) for each in counts]
    error = (alpha * (1 - alpha) / len(bounds)) ** 0.5
    assert np.mean([bound < truth for bound in bounds]) < alpha + 4 * error
    many = [round(1e6 * share) for share in shares]
    assert truth < certificates.largest(many, 0, sigma, alpha) < 1.02 * truth


def test_certificates_are_attacked_and_counted_again():
    torch.manual_seed(0)
    model = si.NoisyModel(network(), inputs=si.Gaussian(0.25)).eval()
    images = torch.rand(3, 3, 32, 32)
    labels = si.SmoothedClassifier(model, 16, seed=0).predict(images).labels
    radii = torch.tensor([0.0, 1e-4, 9.0])  # no certificate, a true one, a false one
    found = certificates.beside_fixed(model, images, labels, radii, 64, 1e-3)
    assert (found["certificates"], found["contradicted"]) == (2, 1)


def test_results_on_the_same_images_are_compared_in_pairs(tmp_path):
    images = list(range(6)) * 2
    for name, attacked in (("one", [1, 1, 0, 0, 0, 1]), ("other", [1, 0, 0, 0, 1, 0])):
        columns = {"image": images, "correct": [True] * 6 + [bool(each) for each in attacked]}
        columns |= {"attack": ["none"] * 6 + ["pgd"] * 6, "samples": [8] * 12, "sigma": [0.5] * 12}
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns), tmp_path / name / "table.parquet")
    one, other = (paired.answers(paired.rows_in(tmp_path / n, [])) for n in ("one", "other"))
    assert paired.difference(one["none"], other["none"]).value == 0
    assert paired.difference(one["pgd"], other["pgd"]).value == pytest.approx(1 / 6)
    assert paired.difference(one[paired.WORST], other[paired.WORST]).images == 6
    assert len(paired.rows_in(tmp_path / "one", ["sigma=0.4"])) == 0
