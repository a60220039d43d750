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

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.workflows.sweep import load_sweep, run_sweep
from tests.conftest import ACCELERATE, SWEEP, TORCHRUN, launched, line, sweep_recipe


def sweep_of(out, **changes):
    torch.set_num_threads(1)
    return run_sweep(sweep_recipe(**changes), out)


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
        si.SmoothedClassifier(noisy, 3),
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
        assert run_sweep(sweep_recipe(), tmp_path / f"{number}", shard=(number, 3)) is None
    merged = run_sweep(
        sweep_recipe(), tmp_path / "all", merge=[tmp_path / f"{n}" for n in range(3)]
    )
    assert merged is not None
    assert table_of(tmp_path / "all") == table_of(whole)
    with pytest.raises(si.InputError, match="no part 3 of 3"):
        run_sweep(sweep_recipe(), tmp_path / "bad", shard=(3, 3))


def test_a_sweep_is_extended_by_what_is_new(tmp_path):
    sweep_of(tmp_path, limit=20)
    before = set((tmp_path / "rows").iterdir())
    examples = set((tmp_path / "crafted").iterdir())
    sweep_of(tmp_path, limit=20, sigma=["0:0.15:0.05"])
    after = set((tmp_path / "rows").iterdir())
    assert before < after
    assert len(after - before) == 3
    more = sweep_of(tmp_path, limit=20, samples=[1, 3, 5])
    # More passes are another vote, on the adversarial examples that are there.
    assert examples <= set((tmp_path / "crafted").iterdir())
    assert len(set((tmp_path / "crafted").iterdir()) - examples) == 2  # of the new sigma
    assert set(more["samples"].to_pylist()) == {1, 3, 5}


def test_examples_are_made_once_for_all_sigmas(tmp_path):
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
    entries = si.summarise(rows)
    assert len(entries) == 2 * 2 * 3
    assert {entry["clean"]["images"] for entry in entries} == {20}
    at = {
        (entry["description"]["attack"], entry["description"]["radius"]): entry["attacked"]["value"]
        for entry in entries
    }
    assert at["fgsm", 0.2] <= at["fgsm", 0.1] <= at["fgsm", 0.0]


def test_the_plan_counts_what_there_is_to_do(tmp_path, capsys):
    assert run_sweep(sweep_recipe(), tmp_path, only_plan=True) is None
    printed = " ".join(capsys.readouterr().out.split())
    votes = 300 * 3 * 3 * 3  # images, sigmas, clean and attacks, passes
    attacks = 300 * 3 * (3 + 2 * 3)  # a backward pass counts as two
    assert f"27 of 27 units to do: {votes:,} passes for votes, about {attacks:,}" in printed
    assert not (tmp_path / "rows").exists()
    run_sweep(sweep_recipe(radius=["0:0.2:0.1"]), tmp_path, only_plan=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"about {3 * attacks:,}" in printed  # each radius is attacked for itself
    sweep_of(tmp_path)
    capsys.readouterr()
    run_sweep(sweep_recipe(samples=[5]), tmp_path, only_plan=True)
    printed = " ".join(capsys.readouterr().out.split())
    assert "about 0 for attacks" in printed  # the examples are there


SIGNALS = [signal.SIGKILL, signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_stopped_at_random_moments_it_ends_with_the_same_table(number, whole, tmp_path):
    stop_at_random(number, whole, tmp_path, times=5)


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_stopped_at_forty_random_moments_it_ends_with_the_same_table(number, whole, tmp_path):
    stop_at_random(number, whole, tmp_path, times=40)


def sweep_by_command(out):
    torch.set_num_threads(1)
    recipe = out.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(SWEEP))
    sys.exit(main(["sweep", str(recipe), "--out", str(out)]))


def stop_at_random(number, whole, folder, times):
    """Finished rows stay, none is doubled, and the table is that of one go."""
    context = multiprocessing.get_context("forkserver")
    preload = ["smoothinfer.workflows.sweep", "sklearn.datasets", "tests.workflows.test_sweep"]
    context.set_forkserver_preload(preload)
    idle = context.Process(target=int)  # the first one waits for the imports
    idle.start()
    idle.join()
    chance, done, tries, longest = random.Random(0), 0, 0, None
    while done < times:
        out, begun = folder / f"{tries}", time.perf_counter()
        finished: set[str] = set()
        while True:
            child = context.Process(target=sweep_by_command, args=(out,))
            child.start()
            child.join(None if longest is None else chance.uniform(0.05, longest))
            if not child.is_alive():
                break
            os.kill(child.pid, number)
            child.join(20)
            caught = -number if number == signal.SIGKILL else 128 + number
            # Before the command begins, a signal kills the child as it does any program.
            assert child.exitcode in (caught, 0, -number, 1)
            done += 1
            rows = {path.name for path in (out / "rows").glob("*.parquet")}
            assert finished <= rows  # no finished row is lost
            finished = rows
        longest = longest or time.perf_counter() - begun  # of the first try, which is not killed
        assert child.exitcode == 0
        assert table_of(out) == table_of(whole)
        assert len(list((out / "rows").glob("*.parquet"))) == 27  # and none doubled
        assert not list(out.rglob("*.tmp"))
        tries += 1


def test_two_equal_sweeps_at_once_double_nothing(whole, tmp_path):
    context = multiprocessing.get_context("forkserver")
    out = tmp_path / "both"
    runs = [context.Process(target=sweep_of, args=(out,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert table_of(out) == table_of(whole)
    units = [path.name.split(".")[0] for path in (out / "rows").glob("*.parquet")]
    assert len(list((out / "rows").glob("*.parquet"))) == 27, units


def test_a_damaged_shard_of_another_setting_is_named_and_stops_nothing(whole, tmp_path):
    sweep_of(tmp_path, limit=20, sigma=[0.1], attacks=["fgsm"])
    for shard in (tmp_path / "rows").glob("*.parquet"):
        shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"\.parquet is damaged"):
        rows = sweep_of(tmp_path, limit=20, sigma=[0.05], attacks=["fgsm"])
    assert len(rows) == 20 * 2 * 2 * 2
    with pytest.raises(si.InputError, match=r"fgsm.*\.parquet is damaged.*delete it to redo it"):
        sweep_of(tmp_path, limit=20, sigma=[0.1], attacks=["fgsm"])
    shards = tmp_path / "other"
    run_sweep(sweep_recipe(limit=20, sigma=[0.1], attacks=["fgsm"]), shards, reuse=[tmp_path])
    assert len(list((shards / "rows").glob("*.parquet"))) == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_give_the_rows_of_one(launcher, whole, tmp_path):
    """About half a minute each."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    launched(launcher, ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")])
    assert table_of(tmp_path / "out") == table_of(whole)


def test_sigterm_ends_it_with_143_and_it_goes_on(whole, tmp_path):
    recipe_file = tmp_path / "sweep.yaml"
    recipe_file.write_text(yaml.safe_dump(SWEEP))
    command = [sys.executable, "-m", "smoothinfer", "sweep", str(recipe_file)]
    run = subprocess.Popen([*command, "--out", str(tmp_path / "out")], stdout=subprocess.DEVNULL)
    while not list((tmp_path / "out").glob("rows/*.parquet")):
        time.sleep(0.01)
        assert run.poll() is None
    run.terminate()
    assert run.wait(timeout=20) in (143, 0)  # 0: it had ended by itself
    sweep_of(tmp_path / "out")
    assert table_of(tmp_path / "out") == table_of(whole)


def test_a_full_disk_names_the_file_and_loses_nothing(tmp_path, monkeypatch, capsys):
    sweep_of(tmp_path / "out", limit=20)
    good = {path: path.read_bytes() for path in (tmp_path / "out" / "rows").iterdir()}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP | {"limit": 20}))

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    command = ["sweep", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert main([*command, "--set", "samples=[1,4]"]) == 2
    printed = capsys.readouterr().err.replace("\n", "")
    assert "No space left" in printed
    assert str(tmp_path / "out") in printed
    assert all(path.read_bytes() == content for path, content in good.items())
    assert not list(tmp_path.rglob("*.tmp"))
    assert main([*command, "--set", "samples=[1,4]"]) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
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
        ({"models": [5]}, "models must be a list of str"),
        ({"limit": -3}, "limit must be at least 1"),
        ({"sigma": ["0:0.5:0.3"]}, "in whole steps"),
        ({"sigma": ["0:inf:1"]}, "in whole steps"),
        ({"seeds": [0, 0]}, "two settings are the same"),
    ],
)
def test_bad_sweeps_are_refused_before_any_work(changes, message, tmp_path):
    with pytest.raises(si.InputError, match=message):
        run_sweep(sweep_recipe(**changes), tmp_path)
    assert not (tmp_path / "rows").exists()


def test_scales_and_overrides_reach_a_sweep(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_text(
        yaml.safe_dump(SWEEP | {"scales": {"paper": {"limit": None, "seeds": [0, 1, 2]}}})
    )
    paper = load_sweep(path, ["rules=[soft]"], "paper")
    assert (paper.limit, paper.seeds, paper.rules) == (None, [0, 1, 2], ["soft"])
    assert load_sweep(path, scale="smoke").limit == 16


@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_the_sweeps_that_come_with_the_package_are_sweeps(name):
    sweep = load_sweep(f"recipes/sweeps/{name}.yaml")
    assert sweep.description
    assert sweep.named
    assert sweep.balls
    assert sweep.first == (name == "cifar10")  # as its figures in docs/results
    with pytest.raises(si.InputError, match="smoothinfer reproduce figure2"):
        load_sweep("recipes/paper/figure2.yaml")


def test_a_sweep_says_what_it_found_and_on_which_images(whole):
    about, _, heads = (whole / "table.md").read_text().splitlines()[:3]
    assert about.startswith("line, 300 images of digits, attacks within 0.1 in L-infinity, sigma 0")
    assert heads.startswith("| ")
    for name in ("settings.json", "summary.json"):
        saved = json.loads((whole / name).read_text())
        assert saved["data"]["hash"] == si.load_data("digits", "test", 300).hash


def test_a_sweep_records_how_its_images_were_chosen(tmp_path):
    for first in (False, True):
        out = tmp_path / str(first)
        sweep_of(out, limit=20, first=first, sigma=[0], attacks=["fgsm"])
        saved = json.loads((out / "summary.json").read_text())
        assert (saved["asked"]["limit"], saved["asked"]["first"]) == (20, first)
        assert saved["data"]["choice"] == ("first" if first else "by class")
        assert saved["data"]["hash"] == si.load_data("digits", "test", 20, first=first).hash
    shards = [
        {path.name for path in (tmp_path / str(f) / "rows").glob("*.parquet")}
        for f in (False, True)
    ]
    assert not shards[0] & shards[1]  # other images, other keys


def test_a_sweep_names_a_split_of_the_data_set_itself(tmp_path):
    for split in ("validation", "nowhere"):
        with pytest.raises(si.InputError, match=f"choose one of source:{split} "):
            run_sweep(sweep_recipe(split=split), tmp_path)
