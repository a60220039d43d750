"""Sweeps: one table whatever happens, killed, shared out, merged, damaged, resumed, extended."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

import smoothinfer as si
from smoothinfer import files
from smoothinfer.cli import main
from smoothinfer.config.yaml_files import filled
from smoothinfer.evaluation import Store, prepare
from smoothinfer.evaluation.fingerprint import spelt_out
from smoothinfer.smoothing import SmoothedClassifier
from smoothinfer.engine.passes import Engine
from smoothinfer.workflows.sweep import SweepRecipe, load_sweep, run_sweep, works_of
from tests.conftest import ACCELERATE, TORCHRUN, launched

CONTENT = {
    "models": {"line": "tests.test_sweep:line"},
    "data": "digits",
    "limit": 300,
    "sigma": ["0:0.1:0.05"],
    "attacks": ["fgsm", "pgd(steps=2)"],
    "ball": "linf(radius=0.1)",
    "rules": ["prediction", "soft"],
    "samples": [1, 3],
}


def line():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def recipe(**changes):
    return filled(SweepRecipe, CONTENT | changes, "the sweep")


def sweep_of(out, **changes):
    torch.set_num_threads(1)
    return run_sweep(recipe(**changes), out)


def table_of(out):
    return hashlib.sha256((Path(out) / "table.parquet").read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep in one go."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    rows = sweep_of(out)
    assert len(rows) == 300 * 3 * 3 * 2 * 2  # images, sigmas, clean and attacks, rules, samples
    return out


def test_a_sweep_is_its_evaluations(whole, tmp_path):
    rows = sweep_of(whole)  # nothing is left to do
    data = si.load_data("digits", "test", 300)
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.05)).eval()
    alone = si.evaluate(
        SmoothedClassifier(noisy, 3),
        data,
        attack="fgsm",
        ball=si.Linf(0.1),
        rules=["prediction", "soft"],
        samples=[1, 3],
    )
    mask = [
        sigma == 0.05 and attack in ("none", "fgsm")
        for sigma, attack in zip(rows["sigma"].to_pylist(), rows["attack"].to_pylist(), strict=True)
    ]
    part = rows.filter(mask)
    for column in ("image", "attack", "rule", "samples", "predicted", "hits", "distance"):
        assert part[column].to_pylist() == alone[column].to_pylist()


def test_three_parts_merged_are_one_run(whole, tmp_path):
    for number in range(3):
        assert run_sweep(recipe(), tmp_path / f"{number}", shard=(number, 3)) is None
    merged = run_sweep(recipe(), tmp_path / "all", merge=[tmp_path / f"{n}" for n in range(3)])
    assert merged is not None
    assert table_of(tmp_path / "all") == table_of(whole)
    with pytest.raises(si.InputError, match="no part 3 of 3"):
        run_sweep(recipe(), tmp_path / "bad", shard=(3, 3))


def test_a_sweep_is_extended_by_what_is_new(tmp_path, monkeypatch):
    sweep_of(tmp_path, limit=20)
    before = set((tmp_path / "rows").iterdir())
    crafted = set((tmp_path / "crafted").iterdir())
    sweep_of(tmp_path, limit=20, sigma=["0:0.15:0.05"])
    after = set((tmp_path / "rows").iterdir())
    assert before < after
    assert len(after - before) == 3
    more = sweep_of(tmp_path, limit=20, samples=[1, 3, 5])
    # More passes are another vote, on the adversarial examples that are there.
    assert crafted <= set((tmp_path / "crafted").iterdir())
    assert len(set((tmp_path / "crafted").iterdir()) - crafted) == 2  # of the new sigma
    assert set(more["samples"].to_pylist()) == {1, 3, 5}


def test_examples_are_crafted_once_for_all_sigmas(tmp_path):
    rows = sweep_of(tmp_path, limit=20, attack_sigma=0.05)
    assert len(list((tmp_path / "crafted").iterdir())) == 2  # one of each attack
    assert set(rows["attack_sigma"].to_pylist()) == {0.05}
    distances = {
        (attack, sigma, image): distance
        for attack, sigma, image, distance in zip(
            *(rows[name].to_pylist() for name in ("attack", "sigma", "image", "distance")),
            strict=True,
        )
    }
    assert distances["fgsm", 0.0, 3] == distances["fgsm", 0.1, 3]


def test_radii_share_their_clean_images(tmp_path):
    rows = sweep_of(tmp_path, limit=20, sigma=["0.1"], radius=["0:0.2:0.1"], samples=[2])
    assert len(rows) == 20 * 2 * (1 + 2 * 3)  # rules; clean once, two attacks in three balls
    told = si.summarise(rows)
    assert len(told) == 2 * 2 * 3
    assert {entry["clean"]["images"] for entry in told} == {20}
    at = {
        (entry["description"]["attack"], entry["description"]["radius"]): entry["attacked"]["value"]
        for entry in told
    }
    assert at["fgsm", 0.2] <= at["fgsm", 0.1] <= at["fgsm", 0.0]


def test_transferred_examples_do_not_depend_on_the_target(tmp_path):
    attack = 'transfer(source="tests.test_sweep:line", steps=2)'
    sweep_of(tmp_path, limit=20, attacks=[attack])
    assert len(list((tmp_path / "crafted").iterdir())) == 1


def test_a_transferred_attack_is_charged_what_it_asks_its_source(tmp_path):
    attack = 'transfer(source="tests.test_sweep:line", steps=2)'
    rows = sweep_of(tmp_path, limit=20, attacks=["pgd(steps=2)", attack])
    costs = {e["description"]["attack"]: e["attacked"] for e in si.summarise(rows)}
    direct, moved = costs.values()
    assert direct["forwards"] == moved["forwards"] > 0
    assert direct["backwards"] == moved["backwards"] > 0


def test_the_plan_counts_what_there_is_to_do(tmp_path, capsys):
    assert run_sweep(recipe(), tmp_path, only_plan=True) is None
    told = " ".join(capsys.readouterr().out.split())
    votes = 300 * 3 * 3 * 3  # images, sigmas, clean and attacks, passes
    crafting = 300 * 3 * (3 + 2 * 3)  # a backward pass counts as two
    assert f"27 of 27 units to do: {votes:,} passes for votes, about {crafting:,}" in told
    assert not (tmp_path / "rows").exists()
    run_sweep(recipe(radius=["0:0.2:0.1"]), tmp_path, only_plan=True)
    told = " ".join(capsys.readouterr().out.split())
    assert f"about {3 * crafting:,}" in told  # each radius is attacked for itself
    sweep_of(tmp_path)
    capsys.readouterr()
    run_sweep(recipe(samples=[5]), tmp_path, only_plan=True)
    told = " ".join(capsys.readouterr().out.split())
    assert "about 0 for attacks" in told  # the examples are there


def test_all_cells_cost_one_run_of_the_most_passes(tmp_path, monkeypatch):
    """Ten sample counts and three rules for the passes of the largest alone."""
    counted = []
    real = Engine.run

    def counting(self, images, first, samples):
        counted.append(samples)
        return real(self, images, first, samples)

    monkeypatch.setattr(Engine, "run", counting)
    counts = [2**k for k in range(7)]
    works = works_of(
        recipe(samples=counts, rules=["prediction", "weighted", "soft"], sigma=["0.1"]),
        tmp_path,
        si.load_data("digits", "test", 8),
    )
    for unit in works[0].units:
        works[0].do([unit])
    assert counted == [64] * 3  # clean and two attacks


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_units_done_together_give_the_rows_that_each_gives_alone(dropout, tmp_path):
    net = nn.Sequential(line(), nn.Dropout(dropout)).eval()
    net[1].training = bool(dropout)  # left on, a pass depends on an image's place
    model = si.NoisyModel(net, inputs=si.Gaussian(0.05)) if not dropout else net
    smooth = SmoothedClassifier(model, 8, tile=512)
    smooth.training = model.training = False
    data = si.load_data("digits", "test", 300)
    work = prepare(smooth, data, attack="fgsm", ball=si.Linf(0.1), crafted=tmp_path)
    units = list(work.units)
    assert (len(units), work.at_once) == (6, 4)
    told = []
    together = work.do(units, told.append)
    assert sum(told) == 6 * 8
    for unit, rows in zip(units, together, strict=True):
        assert rows.equals(*work.do([unit]))


def test_killed_at_random_moments_it_ends_with_the_same_table(whole, tmp_path):
    kill_at_random(whole, tmp_path, kills=12)


@pytest.mark.slow
def test_killed_at_fifty_random_moments_it_ends_with_the_same_table(whole, tmp_path):
    kill_at_random(whole, tmp_path, kills=50)


def kill_at_random(whole, folder, kills):
    """kill -9; finished rows stay, none is doubled, and the table is that of one go."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["smoothinfer.workflows.sweep", "tests.test_sweep"])
    moments, done, tries = random.Random(0), 0, 0
    while done < kills:
        out = folder / f"{tries}"
        finished: set[str] = set()
        while True:
            child = context.Process(target=sweep_of, args=(out,))
            child.start()
            child.join(moments.uniform(0.05, 0.6))
            if not child.is_alive():
                break
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            done += 1
            held = {path.name for path in (out / "rows").glob("*.parquet")}
            assert finished <= held  # no finished row is lost
            finished = held
        assert child.exitcode == 0
        assert table_of(out) == table_of(whole)
        assert len(list((out / "rows").glob("*.parquet"))) == 27  # and none doubled
        assert not list(out.rglob("*.tmp"))
        tries += 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_rows_of_one(launcher, whole, tmp_path):
    """About half a minute each."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(CONTENT))
    launched(launcher, ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")])
    assert table_of(tmp_path / "out") == table_of(whole)


def test_sigterm_ends_it_with_143_and_it_goes_on(whole, tmp_path):
    recipe_file = tmp_path / "sweep.yaml"
    recipe_file.write_text(yaml.safe_dump(CONTENT))
    command = [sys.executable, "-m", "smoothinfer", "sweep", str(recipe_file)]
    run = subprocess.Popen([*command, "--out", str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("rows/*.parquet")):
        time.sleep(0.01)
        assert run.poll() is None
    run.terminate()
    assert run.wait(timeout=20) in (143, 0)  # 0: it had ended by itself
    sweep_of(tmp_path / "out")
    assert table_of(tmp_path / "out") == table_of(whole)


def test_every_flipped_byte_is_found(whole, tmp_path):
    shard = sorted((whole / "rows").glob("*.parquet"))[0]
    content, moments = shard.read_bytes(), random.Random(0)
    copy = tmp_path / shard.name
    for _ in range(300):
        broken = bytearray(content)
        broken[moments.randrange(len(content))] ^= 1 << moments.randrange(8)
        copy.write_bytes(bytes(broken))
        with pytest.raises(si.InputError, match=shard.name):
            Store(tmp_path).read()
    copy.write_bytes(content)
    assert Store(tmp_path).read().num_rows > 0


def test_a_damaged_example_is_found(tmp_path):
    sweep_of(tmp_path, limit=20)
    example = sorted((tmp_path / "crafted").iterdir())[0]
    content = bytearray(example.read_bytes())
    content[-5] ^= 4
    example.write_bytes(bytes(content))
    with pytest.raises(si.InputError, match=example.name):
        sweep_of(tmp_path, limit=20, samples=[2])


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path, monkeypatch, capsys):
    sweep_of(tmp_path / "out", limit=20)
    good = {path: path.read_bytes() for path in (tmp_path / "out" / "rows").iterdir()}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(CONTENT | {"limit": 20}))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert main([*command, "--set", "samples=[1,4]"]) == 2
    told = capsys.readouterr().err.replace("\n", "")
    assert "No space left" in told
    assert str(tmp_path / "out") in told
    assert all(path.read_bytes() == content for path, content in good.items())
    assert not list(tmp_path.rglob("*.tmp"))
    assert main([*command, "--set", "samples=[1,4]"]) == 0


def test_long_names_of_attacks_make_files(tmp_path):
    store, unit = Store(tmp_path), f"pgd({'x' * 400})-000000-abc"
    store.write(unit, si.evaluate(line(), si.load_data("digits", "test", 2)))
    assert Store(tmp_path).has(unit)
    assert not Store(tmp_path).has(unit.replace("abc", "abd"))


def climbing(steps):
    def attack(model, images, labels, ball, *, generator=None, steps=steps):
        return si.pgd(model, images, labels, ball, steps=steps, generator=generator)

    return attack


class Slotted:
    __slots__ = ("steps",)

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, model, images, labels, ball, *, generator=None):
        return si.pgd(model, images, labels, ball, steps=self.steps, generator=generator)


def nested(steps):
    return eval(f"lambda *given: (lambda: {steps})()")  # the inner function differs alone


@pytest.mark.parametrize("kind", [climbing, Slotted, nested])
def test_attacks_that_differ_are_spelt_differently(kind):
    assert spelt_out(kind(1)) == spelt_out(kind(1))
    assert spelt_out(kind(1)) != spelt_out(kind(2))


def test_functions_are_spelt_alike_by_every_version_of_python():
    assert "def pgd(" in spelt_out(si.pgd)
    one, two = (lambda x: x + 1), (lambda x: x + 2)  # on one line: their source does not tell
    assert spelt_out(one) != spelt_out(two)
    typed = {}
    exec("def typed(x):\n    return x + 1", typed)
    exec("def other(x):\n    return x + 2", typed)
    assert spelt_out(typed["typed"]) != spelt_out(typed["other"]).replace("other", "typed")


def test_a_draft_of_another_machine_is_left_alone(tmp_path):
    mine, other = (tmp_path / f".a.json.999999.{host}.tmp" for host in (files._HOST, "elsewhere"))
    for draft in (mine, other):
        draft.write_text("x")
    files.write_json(tmp_path / "a.json", {})
    assert not mine.exists()
    assert other.exists()


def test_two_writers_leave_one_unit(tmp_path, whole):
    data = si.load_data("digits", "test", 20)
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.05)).eval()
    work = prepare(SmoothedClassifier(noisy, 3), data, attack="fgsm", ball=si.Linf(0.1))
    one, two = Store(tmp_path), Store(tmp_path)  # neither knows of the other
    for unit in work.units:
        for store in (one, two):
            store.write(unit, *work.do([unit]))
    assert one.read(list(work.units)).num_rows == 40
    assert Store(tmp_path).read().num_rows == 40


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {}}, r"unknown key.*'model'.*models"),
        ({"models": {}}, "a sweep needs models"),
        ({"models": ["nowhere"]}, "no model 'nowhere'"),
        ({"models": ["a/last", "b/last"]}, "names of their own"),
        ({"sigma": ["0:1"]}, "sigma must be a number or first:last:step"),
        ({"radius": ["x"]}, "radius must be a number or first:last:step"),
        ({"attacks": ["pdg"]}, "unknown attack 'pdg'"),
        ({"samples": [0]}, "samples must be at least 1"),
        ({"samples": [1, 2.5]}, "samples must be a list of int, not 2.5"),
        ({"seeds": ["a"]}, "seeds must be a list of int"),
        ({"rules": [5]}, "rules must be a list of str"),
        ({"models": [5]}, "models must be names or paths"),
        ({"limit": -3}, "limit must be at least 1"),
        ({"sigma": ["0:0.5:0.3"]}, "in whole steps"),
        ({"sigma": ["0:inf:1"]}, "in whole steps"),
        ({"seeds": [0, 0]}, "two settings of the sweep are the same"),
    ],
)
def test_bad_sweeps_are_refused_before_any_work(changes, said, tmp_path):
    with pytest.raises(si.InputError, match=said):
        run_sweep(recipe(**changes), tmp_path)
    assert not (tmp_path / "rows").exists()


def test_scales_and_changes_reach_a_sweep(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        yaml.safe_dump(CONTENT | {"scales": {"paper": {"limit": None, "seeds": [0, 1, 2]}}})
    )
    paper = load_sweep(path, ["rules=[soft]"], "paper")
    assert (paper.limit, paper.seeds, paper.rules) == (None, [0, 1, 2], ["soft"])
    assert load_sweep(path, scale="smoke").limit == 16


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_sweeps_that_come_with_the_package_are_sweeps(name):
    sweep = load_sweep(f"recipes/sweeps/{name}.yaml")
    assert sweep.about
    assert sweep.named
    assert sweep.balls
    with pytest.raises(si.InputError, match="smoothinfer reproduce figure2"):
        load_sweep("recipes/paper/figure2.yaml")


def test_a_sweep_tells_what_it_found_and_of_which_images(whole):
    assert (whole / "table.md").read_text().startswith("| ")
    for name in ("settings.json", "summary.json"):
        told = json.loads((whole / name).read_text())
        assert told["data"]["hash"] == si.load_data("digits", "test", 300).hash
