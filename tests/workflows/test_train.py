"""Runs as a user meets them: several processes, mistakes and second tries, starts, judges."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.numerics.randomness import isolated_rng, normal, part_of_batch, uniform
from smoothinfer.recipes import recipe_from
from smoothinfer.training.history import Course
from smoothinfer.training.loop import _moved
from tests.conftest import ACCELERATE, TORCHRUN, launched
from tests.test_training import TINY

SHORT = TINY | {"epochs": 1, "attack": "pgd(steps=1)", "judge": "pgd(steps=1)"}


@pytest.fixture
def digits():
    return si.load_data("digits", "train", 300)


def csv_of(folder):
    lines = [line.split(",") for line in (folder / "epochs.csv").read_text().splitlines()]
    return [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]


WEIGHTS = {"0.weight", "3.weight", "7.weight", "12.weight"}


def train_tiny(out, *changes):
    given = ["train", "digits/cni-w.yaml", "--data", "digits", "--limit", "300", "--out", str(out)]
    fewer = ["validation.held_out=50", "validation.images=50", "attack.steps=2", "epochs=2"]
    return [*given, "--set", *fewer, "noise.inputs=uniform(sigma=0.05)", *changes]


AT_ACTIVATIONS = ["noise.weights=null", "noise.activations=cni(rank=2)"]


@pytest.mark.parametrize("changes", [[], AT_ACTIVATIONS], ids=["weights", "activations"])
def test_two_processes_train_to_the_curve_of_one(tmp_path, changes):
    """Batch statistics, all noise, how strong it is and random starts are the whole batch's."""
    assert main(train_tiny(tmp_path / "one", *changes)) == 0
    told = launched(TORCHRUN, train_tiny(tmp_path / "two", *changes))
    one, two = csv_of(tmp_path / "one"), csv_of(tmp_path / "two")
    for alone, together in zip(one, two, strict=True):
        assert together["loss"] == pytest.approx(alone["loss"], abs=1e-4)
        assert together["noise"] == pytest.approx(alone["noise"], abs=1e-4)
        assert together["clean"] == pytest.approx(alone["clean"], abs=0.02)
    weights = [si.load(tmp_path / name, "last").state_dict() for name in ("one", "two")]
    for name, weight in weights[0].items():
        assert torch.allclose(weight.float(), weights[1][name].float(), atol=1e-3), name
    assert told.count("epoch 1 ") == 1  # one process speaks for both


@pytest.mark.slow
def test_two_processes_resume_and_stop_early_together(tmp_path):
    """Under accelerate launch too; about a minute."""
    changes = ["noise.weights=null", "save_seconds=0", "epochs=4"]
    launched(TORCHRUN, train_tiny(tmp_path / "whole", *changes))
    command = [sys.executable, "-m", *TORCHRUN, "-m", "smoothinfer"]
    run = subprocess.Popen([*command, *train_tiny(tmp_path / "cut", *changes)])
    while not (tmp_path / "cut" / "epochs.csv").exists():
        assert run.poll() is None
    run.terminate()
    run.wait(timeout=60)
    launched(TORCHRUN, train_tiny(tmp_path / "cut", *changes))
    one, two = ((tmp_path / name / "last.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == two
    stopping = ["lr=0.0", "patience=1", "epochs=9"]
    assert "stopped early" in launched(ACCELERATE, train_tiny(tmp_path / "early", *stopping))
    assert len(csv_of(tmp_path / "early")) < 9


def test_parts_of_a_batch_use_the_numbers_of_the_whole():
    like = torch.zeros(1)
    for draw in (normal, uniform):
        with isolated_rng(0):
            whole, weights = draw((6, 2), like), draw((3,), like, images=False)
        for index in range(3):
            with isolated_rng(0), part_of_batch(index, 3):
                assert torch.equal(draw((2, 2), like), whole[index::3])
                assert torch.equal(draw((3,), like, images=False), weights)


def test_a_batch_must_be_shared_out_evenly(tmp_path):
    with pytest.raises(AssertionError, match="cannot be shared out evenly among 2 processes"):
        launched(TORCHRUN, train_tiny(tmp_path, "batch_size=33"))


def test_a_start_that_failed_claims_no_folder(tmp_path, digits):
    for bad, said in (({"loss": "adversarial(w=2)"}, "w must"), ({"trackers": ["x"]}, "trackers")):
        with pytest.raises(si.InputError, match=said):
            si.train_run(recipe_from(SHORT | bad), digits, tmp_path)
    si.train_run(recipe_from(SHORT), digits, tmp_path)
    si.train_run(recipe_from(SHORT | {"save_seconds": 9.0, "about": "mine"}), digits, tmp_path)
    written = (tmp_path / "recipe.yaml").read_text()  # of a version with other ways to compile
    (tmp_path / "recipe.yaml").write_text(written.replace("compile: 'off'", "compile: auto"))
    assert "compile: auto" in (tmp_path / "recipe.yaml").read_text()
    si.train_run(recipe_from(SHORT), digits, tmp_path)
    with pytest.raises(si.InputError, match=r"they differ in lr: choose another"):
        si.train_run(recipe_from(SHORT | {"lr": 0.3}), digits, tmp_path)
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:500])
    with pytest.raises(si.InputError, match="cannot be read"):
        si.train_run(recipe_from(SHORT), digits, tmp_path)


def test_fine_tuning_is_judged_by_images_that_no_training_saw(tmp_path, digits):
    si.train_run(recipe_from(SHORT), digits, tmp_path / "first")
    start = SHORT | {"start": str(tmp_path / "first"), "seed": 5}
    more = {"validation": {"held_out": 150, "images": 50}}
    with pytest.raises(si.InputError, match="held_out to 100 or less"):
        si.train_run(recipe_from(start | more), digits, tmp_path / "second")
    si.train_run(recipe_from(start), digits, tmp_path / "second")
    every, fewer = si.data.hold_out(digits, 100), si.data.hold_out(digits, 40)
    kept = {image.numpy().tobytes() for image in every[1].pixels}
    assert all(image.numpy().tobytes() in kept for image in fewer[1].pixels)


def test_a_start_on_the_first_images_is_followed_by_none_that_holds_them_out(tmp_path, digits):
    si.train_run(recipe_from(SHORT), digits[:200], tmp_path / "first")
    start = SHORT | {"start": str(tmp_path / "first")}
    with pytest.raises(si.InputError, match="would hold out: give --limit 200"):
        si.train_run(recipe_from(start), digits, tmp_path / "second")
    si.train_run(recipe_from(start), digits[:200], tmp_path / "second")


def test_another_training_under_the_same_name_is_another_start(tmp_path, digits):
    si.train_run(recipe_from(SHORT), digits, tmp_path / "first")
    start = recipe_from(SHORT | {"start": str(tmp_path / "first")})
    si.train_run(start, digits, tmp_path / "second")
    si.train_run(start, digits, tmp_path / "second")  # nothing has changed: there is nothing to do
    card = json.loads((tmp_path / "first" / "best.json").read_text())
    tuned = json.loads((tmp_path / "second" / "best.json").read_text())
    assert tuned["start_sha256"] == card["sha256"]
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(si.InputError, match="train it first"):
        si.train_run(start, digits, tmp_path / "third")
    si.train_run(recipe_from(SHORT | {"seed": 7}), digits, tmp_path / "first")
    with pytest.raises(si.InputError, match="differ in the weights of start"):
        si.train_run(start, digits, tmp_path / "second")


def test_a_start_brings_its_normalisation(tmp_path, digits):
    si.train_run(recipe_from(SHORT), digits, tmp_path / "first")
    start = SHORT | {"start": str(tmp_path / "first")}
    other = {"normalise": {"mean": [0.0], "std": [1.0]}}
    with pytest.raises(si.InputError, match="leave normalise out"):
        si.train_run(recipe_from(start | other), digits, tmp_path / "second")
    few = si.load_data("digits", "train", 200)  # of another mean
    si.train_run(recipe_from(start), few, tmp_path / "second")
    cards = [json.loads((tmp_path / n / "last.json").read_text()) for n in ("first", "second")]
    assert cards[0]["recipe"]["normalise"] == cards[1]["recipe"]["normalise"]


class LikeTransformers(nn.Module):
    def forward(self, images):
        return SimpleNamespace(logits=images.flatten(1)[:, :10])


def like_transformers():
    return LikeTransformers()


def head(classes=7):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def fixed_head():
    return head(7)


def no_module():
    return "a network"


def test_a_factory_gets_the_classes_that_it_takes_and_must_answer_with_them(tmp_path, digits):
    quiet = SHORT | {"noise": {}, "model": "tests.test_runs:head"}
    si.train_run(recipe_from(quiet), digits, tmp_path / "fits")
    assert si.load(tmp_path / "fits")(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    told = {
        "fixed_head": "7,. logits, digits has 10",
        "no_module": "made no",
        "like_transformers": "answers with a SimpleNamespace.*LogitsOf",
    }
    for model, said in told.items():
        wrong = recipe_from(quiet | {"model": f"tests.test_runs:{model}"})
        with pytest.raises(si.InputError, match=said):
            si.train_run(wrong, digits, tmp_path / "wrong")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attack": "pgd(steps='many')"}, "option steps of attack 'pgd' must be int, not 'many'"),
        ({"model": "smallnet(width='big')"}, "option width of model 'smallnet' must be int"),
        ({"schedule": {"warmup": 3}}, "schedule: write a name"),
    ],
)
def test_options_of_a_wrong_type_are_named(change, said, tmp_path, digits):
    with pytest.raises(si.InputError, match=said):
        si.train_run(recipe_from(SHORT | change), digits, tmp_path)


def test_the_alarm_needs_a_best_above_chance():
    course = Course()
    for value in (0.04, 0.01, 0.4, 0.3, 0.15):
        course.finish_epoch({"attacked": value}, "attacked", 0.1)
    assert [row["collapsed"] for row in course.epochs] == [0, 0, 0, 0, 1]


def test_the_alarm_looks_at_attacked_accuracy_whatever_the_score():
    course = Course()
    for clean, attacked in ((0.5, 0.3), (0.6, 0.35), (0.8, 0.01)):
        row = {"clean": clean, "attacked": attacked}
        deserved = course.finish_epoch(row, "clean", 0.1)
    assert course.collapsed
    assert "best" in deserved


def test_single_steps_say_what_they_risk(tmp_path, capsys):
    given = ["train", "digits/cni-w.yaml", "--data", "digits", "--scale", "smoke", "--set"]
    assert main([*given, "attack.steps=1", "--out", str(tmp_path / "one")]) == 0
    assert "catastrophic overfitting" in " ".join(capsys.readouterr().out.split())
    assert recipe_from(SHORT).risk.endswith("give one of more")  # its judge is blind as well
    assert recipe_from(TINY).risk == ""


@pytest.mark.parametrize(
    ("noise", "places"),
    [
        ({"activations": "pni"}, {"0", "3", "7", "12"}),
        ({"inputs": "pni", "weights": "pni"}, WEIGHTS | {"inputs"}),
    ],
)
def test_noise_is_told_wherever_it_is_learned(noise, places, tmp_path, digits):
    course = si.train_run(recipe_from(SHORT | {"noise": noise}), digits, tmp_path)
    strengths = json.loads((tmp_path / "strengths.json").read_text())["1"]
    assert {name.removeprefix("1.") for name in strengths} == places
    assert course.epochs[0]["noise"] == pytest.approx(sum(strengths.values()) / len(strengths))
    assert all(0.2 < value < 0.3 for value in strengths.values())  # alpha begins at 0.25


def test_the_average_follows_early_weights_closely():
    average, now = [torch.zeros(2)], [torch.ones(2)]
    _moved(0.999, average, now, 1)
    assert average[0].tolist() == pytest.approx([1 - 2 / 11] * 2)
    _moved(0.5, average, now, 1000)
    assert average[0].tolist() == pytest.approx([1 - 1 / 11] * 2)


def test_a_run_on_the_first_images_knows_which_it_held_out(tmp_path, digits):
    si.train_run(recipe_from(SHORT), digits, tmp_path / "run")
    given = ["evaluate", str(tmp_path / "run"), "--data", "digits", "--attack", "none"]
    given += ["--samples", "2", "--out", str(tmp_path / "out")]
    assert main([*given, "--split", "validation"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"][0]["clean"]["images"] == 100


def test_trackers_get_the_table_of_epochs(tmp_path, digits):
    pytest.importorskip("tensorboard")
    si.train_run(recipe_from(SHORT | {"trackers": ["tensorboard"]}), digits, tmp_path)
    assert list(tmp_path.rglob("events.out.tfevents*"))
