"""A campaign keeps to its time, loses nothing, and tells how each task ended."""

import io
import shlex
import tarfile
import time
from pathlib import Path

import pytest
import yaml
from benchmarks import campaign, tasks
from benchmarks.archives import pack

from smoothinfer.cli import COMMANDS
from smoothinfer.errors import InputError
from smoothinfer.networks import MODELS
from smoothinfer.recipes import load_recipe
from smoothinfer.runtime.files import read_json

TINY = ["model=smallnet(width=4)", "attack=pgd(steps=1)", "batch_size=32", "validation.images=16"]
PLAN = {
    "tasks": [
        {
            "name": "net",
            "train": "digits/cni-w.yaml",
            "set": TINY,
            "epochs": 50,
            "keep": ["last.*", "log.json"],
        },
        {
            "name": "judged",
            "command": "smoothinfer evaluate {net} --data {data} --out {out} --radius 0.1",
            "smoke": "--limit 8 --samples 4",
            "keep": ["summary.json"],
        },
        {"name": "broken", "command": "smoothinfer evaluate nothing --data {data} --out {out}"},
        {"name": "orphan", "command": "smoothinfer evaluate {nobody}"},
        {"name": "endless", "command": "tests.endless", "minutes": 0.02},
    ]
}


def write(plan, path):
    path.write_text(yaml.safe_dump(plan))
    return str(path)


def back(out):
    parts = sorted((out / "back").iterdir())
    assert all(part.stat().st_size <= 16 * 2**20 for part in parts)
    with tarfile.open(fileobj=io.BytesIO(b"".join(p.read_bytes() for p in parts))) as archive:
        return set(archive.getnames())


def test_a_plan_is_rehearsed_from_end_to_end(tmp_path, monkeypatch):
    plan, out = write(PLAN, tmp_path / "plan.yaml"), tmp_path / "out"
    monkeypatch.setattr(tasks, "_PATIENCE", 1.0)
    real, words_of = tasks._run, {}

    def run(words, log, limit):
        words_of[log.stem] = words
        endless = ["-c", "import time; print('begun', flush=True); time.sleep(60)"]
        return real(endless if log.stem == "endless" else words, log, limit)

    monkeypatch.setattr(tasks, "_run", run)
    asked = [plan, "--data", "digits", "--minutes", "5", "--out", str(out), "--smoke"]
    begun = time.monotonic()
    assert campaign.main(asked) == 1
    found = read_json(out / "campaign.json")["tasks"]
    states = {name: task["state"] for name, task in found.items()}
    assert states == {
        **{"net": "done", "judged": "done", "broken": "failed"},
        **{"orphan": "skipped", "endless": "stopped"},
    }
    assert found["net"]["details"]["epochs"] == 3
    assert "nothing" in found["broken"]["note"]
    wanted = {"net/last.safetensors", "net/last.json", "net/log.json", "judged/summary.json"}
    assert wanted | {"campaign.json", "net.log"} <= back(out)
    took = time.monotonic() - begun
    # What is done stays done; the rest is tried again.
    words_of.clear()
    assert campaign.main(asked) == 1
    assert "net" not in words_of
    assert {"broken", "endless"} <= set(words_of)
    assert time.monotonic() - begun < 2 * took


def test_a_training_that_was_cut_goes_on_with_its_own_epochs(tmp_path, monkeypatch):
    task = tasks.Task("net", train="digits/cni-w.yaml", epochs=50)
    place = tasks.Place(tmp_path, "digits")
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "recipe.yaml").write_text("epochs: 17\n")
    seen = []
    monkeypatch.setattr(
        tasks, "_run", lambda words, *_: seen.append(words) or tasks.Outcome("done")
    )
    tasks.run_task(task, place, 100.0)
    assert [words[-3] for words in seen] == ["epochs=17"]


@pytest.mark.parametrize(
    ("left", "epochs", "state"),
    [(1000.0, 300, "done"), (100.0, 81, "done"), (50.0, 32, "skipped"), (0.0, None, "skipped")],
)
def test_epochs_fit_the_time_that_is_left(left, epochs, state, tmp_path, monkeypatch):
    """The probe takes 12 s, of which two epochs take 2: 10 s to begin, 1 s for each epoch."""
    task = tasks.Task("net", train="a.yaml", epochs=300, fewest=60)
    seen = []

    def run(words, log, limit):
        seen.append((words[-3], limit))
        return tasks.Outcome("done", "", {"seconds": 12.0})

    monkeypatch.setattr(tasks, "_run", run)
    monkeypatch.setattr(tasks, "_seconds_per_epoch", lambda folder: 1.0)
    outcome = tasks.run_task(task, tasks.Place(tmp_path, "digits"), left)
    assert outcome.state == state
    if epochs is not None:
        assert outcome.details["epochs"] == min(300, int(0.97 * (left - 22)))
        assert abs(outcome.details["epochs"] - epochs) <= 6
    if state == "done":
        assert seen[-1] == (f"epochs={outcome.details['epochs']}", left - 12)


def test_parts_are_small_and_old_ones_go(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(bytes(100_000))
    assert len(pack([big], tmp_path / "back", tmp_path, part=16_384)) == 7
    assert len(pack([big], tmp_path / "back", tmp_path, part=65_536)) == 2
    assert len(list((tmp_path / "back").iterdir())) == 2


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "a"}, "needs either train or command"),
        ({"name": "a", "train": "x.yaml"}, "epochs must be at least"),
        ({"name": "a", "comand": "x"}, "comand"),
    ],
)
def test_plans_that_make_no_sense_are_refused(task, message, tmp_path):
    with pytest.raises(InputError, match=message):
        tasks.read_plan(write({"tasks": [task]}, tmp_path / "plan.yaml") and tmp_path / "plan.yaml")


def test_two_tasks_of_one_name_are_refused(tmp_path):
    twice = {"tasks": [{"name": "a", "command": "x"}, {"name": "a", "command": "y"}]}
    write(twice, tmp_path / "plan.yaml")
    with pytest.raises(InputError, match="several tasks called a"):
        tasks.read_plan(tmp_path / "plan.yaml")


PLANS = sorted(Path("benchmarks/plans").glob("*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_of_the_repository_name_what_there_is(path):
    for task in tasks.read_plan(path).tasks:
        if task.train:
            recipe = load_recipe(f"recipes/{task.train}", [*task.set, "epochs=2"])
            recipe.build_loss()
            assert recipe.model.bind("model", MODELS, None)(classes=10, channels=3)
        else:
            words = shlex.split(task.command)
            assert words[0] in ("smoothinfer", "benchmarks", "pytest")
            if words[0] == "smoothinfer":
                assert words[1] in COMMANDS
