import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.recipes import recipe_from
from smoothinfer.runtime.files import read_json
from smoothinfer.runtime.locks import hold_folder
from tests.conftest import SINGLE_STEP, TINY

WEIGHTS = {"0.weight", "3.weight", "7.weight", "12.weight"}


def test_a_run_leaves_everything_behind(tmp_path, digits):
    recipe = recipe_from(TINY)
    history = si.train_run(recipe, digits, tmp_path / "run")
    assert [row["epoch"] for row in history.epochs] == [1, 2]
    assert {"loss", "clean", "attacked", "noise", "lr", "seconds"} <= set(history.epochs[0])
    model = si.load(tmp_path / "run")
    assert isinstance(model, si.NoisyModel)
    assert not any(part.training for part in model.modules())
    card = json.loads((tmp_path / "run" / "best.json").read_text())
    assert card["data"]["hash"] == digits.hash
    assert card["data"]["images"] == 400
    assert recipe_from(card["recipe"]).attack.options == {"steps": 2}
    best = max(history.epochs, key=lambda row: row["attacked"])
    assert card["results"]["validation"]["attacked"] == best["attacked"]
    assert len(json.loads((tmp_path / "run" / "log.json").read_text())["epochs"]) == 2
    with pytest.raises(si.InputError, match="another recipe"):
        si.train_run(recipe_from(TINY | {"lr": 0.5}), digits, tmp_path / "run")


def test_the_command_keeps_the_resolved_recipe(tiny_run):
    assert (tiny_run / "best.safetensors").exists()
    recipe = json.loads((tiny_run / "best.json").read_text())["recipe"]
    assert recipe["epochs"] == 1
    assert recipe["attack"] == {"name": "pgd", "steps": 1}


def test_a_start_that_failed_claims_no_folder(tmp_path, digits):
    for bad, message in (
        ({"loss": "adversarial(w=2)"}, "w must"),
        ({"trackers": ["x"]}, "trackers"),
    ):
        with pytest.raises(si.InputError, match=message):
            si.train_run(recipe_from(SINGLE_STEP | bad), digits, tmp_path)
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)


def test_a_run_resumes_unless_a_key_differs_that_changes_its_result(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    free = {"save_seconds": 9.0, "description": "mine"}
    si.train_run(recipe_from(SINGLE_STEP | free), digits, tmp_path)
    with pytest.raises(si.InputError, match=r"they differ in lr: choose another"):
        si.train_run(recipe_from(SINGLE_STEP | {"lr": 0.3}), digits, tmp_path)


def test_an_edited_recipe_file_of_a_run_is_named(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    path = tmp_path / "recipe.yaml"
    written = path.read_text()
    for edited in (written.replace("epochs: 1", "epochs: 9"), written.replace("lr: 0.2", "lr: [")):
        path.write_text(edited)
        with pytest.raises(si.InputError, match=r"recipe\.yaml is damaged or was edited.* --set"):
            si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    path.unlink()  # the state knows the recipe as well
    with pytest.raises(si.InputError, match=r"they differ in lr: choose another"):
        si.train_run(recipe_from(SINGLE_STEP | {"lr": 0.3}), digits, tmp_path)
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    assert path.read_text() == written


def test_two_trainings_in_one_folder_at_once_are_refused(tmp_path, digits):
    with (
        hold_folder(tmp_path, "trained"),
        pytest.raises(si.InputError, match=rf"being trained by process {os.getpid()} on "),
    ):
        si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)
    assert not (tmp_path / "recipe.yaml").exists()
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path)


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images):
        return self.layer(images.flatten(1))


def test_a_training_whose_network_has_changed_does_not_go_on(tmp_path, digits, monkeypatch):
    recipe = recipe_from(SINGLE_STEP | {"model": "tests.workflows.test_train:Head"})
    si.train_run(recipe, digits, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Head, "forward", lambda self, x: 2 * self.layer(x.flatten(1)))
        message = r"was begun with other code of tests\.workflows\.test_train\.Head.*choose another"
        with pytest.raises(si.InputError, match=message):
            si.train_run(recipe, digits, tmp_path)
    si.train_run(recipe, digits, tmp_path)


def test_a_start_is_checked_against_its_card(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path / "first")
    weights = tmp_path / "first" / "best.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(bytes(content))
    start = recipe_from(SINGLE_STEP | {"init_from": str(tmp_path / "first")})
    with pytest.raises(si.InputError, match=r"best\.safetensors is not the file of its card"):
        si.train_run(start, digits, tmp_path / "second")


def test_a_training_starts_from_another_model(tmp_path, digits):
    quiet = recipe_from(TINY | {"noise": {}, "epochs": 1})
    si.train_run(quiet, digits, tmp_path / "quiet")
    noisy = recipe_from(TINY | {"init_from": str(tmp_path / "quiet"), "lr": 0.0, "epochs": 1})
    si.train_run(noisy, digits, tmp_path / "noisy")
    one, two = (si.load(tmp_path / name).state_dict() for name in ("quiet", "noisy"))
    assert torch.equal(one["module.1.0.weight"], two["module.1.0.weight"])
    assert len(two) > len(one)  # the noise is new
    assert (tmp_path / "noisy" / "noise.png").stat().st_size > 1000
    assert list(read_json(tmp_path / "noisy" / "strengths.json")) == ["1"]
    refused = {"nowhere": "no model 'nowhere' to start from", str(tmp_path / "noisy"): "differ"}
    for start, message in refused.items():
        recipe = recipe_from(TINY | {"noise": {}, "init_from": start})
        with pytest.raises(si.InputError, match=message):
            si.train_run(recipe, digits, tmp_path / "bad")


def test_fine_tuning_is_validated_on_images_that_no_training_saw(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path / "first")
    start = SINGLE_STEP | {"init_from": str(tmp_path / "first"), "seed": 5}
    more = {"validation": {"held_out": 150, "images": 50}}
    with pytest.raises(si.InputError, match="held_out to 100 or less"):
        si.train_run(recipe_from(start | more), digits, tmp_path / "second")
    si.train_run(recipe_from(start), digits, tmp_path / "second")
    every, fewer = si.data.hold_out(digits, 100), si.data.hold_out(digits, 40)
    kept = {image.numpy().tobytes() for image in every[1].pixels}
    assert all(image.numpy().tobytes() in kept for image in fewer[1].pixels)


def test_a_start_on_the_first_images_is_followed_by_none_that_holds_them_out(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits[:200], tmp_path / "first")
    start = SINGLE_STEP | {"init_from": str(tmp_path / "first")}
    with pytest.raises(si.InputError, match="would hold out: give --limit 200"):
        si.train_run(recipe_from(start), digits, tmp_path / "second")
    si.train_run(recipe_from(start), digits[:200], tmp_path / "second")


@pytest.mark.parametrize("first", [False, True])
def test_a_start_on_some_images_is_known_among_all_and_among_others(first, tmp_path):
    data, recipe = si.load_data("digits", "train"), recipe_from(SINGLE_STEP)
    si.train_run(recipe, data, tmp_path / "first", limit=200, first=first)
    card = json.loads((tmp_path / "first" / "best.json").read_text())["data"]
    assert card["choice"] == ("first" if first else "by class")
    assert card["hash"] == si.load_data("digits", "train", 200, first=first).hash
    start = recipe_from(SINGLE_STEP | {"init_from": str(tmp_path / "first")})
    remedy = "give --limit 200 --first, as there" if first else "give --limit 200, as there"
    for others in ({"limit": None}, {"limit": 500}, {"limit": 200, "first": not first}):
        with pytest.raises(si.InputError, match=f"would hold out: {remedy}"):
            si.train_run(start, data, tmp_path / "second", **others)
    si.train_run(start, data, tmp_path / "second", limit=200, first=first)


def test_validation_images_are_of_every_class_unless_the_first_are_asked_for(tmp_path, monkeypatch):
    data = si.load_data("digits", "train", 300)
    data = data[data.labels.argsort(stable=True)]
    held_out, seen = si.data.hold_out(data, 100)[1], []
    monkeypatch.setattr(
        "smoothinfer.workflows.train.validate",
        lambda model, data, attack: seen.append(data) or {"clean": 0.9, "attacked": 0.5},
    )
    for first in (False, True):
        validation = {"held_out": 100, "images": 20, "first": first}
        recipe = recipe_from(SINGLE_STEP | {"validation": validation})
        si.train_run(recipe, data, tmp_path / str(first))
    assert len(seen[0].labels.unique()) == 10
    assert seen[1].hash == held_out[:20].hash


def test_another_training_under_the_same_name_is_another_start(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path / "first")
    start = recipe_from(SINGLE_STEP | {"init_from": str(tmp_path / "first")})
    si.train_run(start, digits, tmp_path / "second")
    si.train_run(start, digits, tmp_path / "second")  # nothing has changed: there is nothing to do
    card = json.loads((tmp_path / "first" / "best.json").read_text())
    tuned = json.loads((tmp_path / "second" / "best.json").read_text())
    assert tuned["start_sha256"] == card["sha256"]
    shutil.rmtree(tmp_path / "first")
    with pytest.raises(si.InputError, match="train it first"):
        si.train_run(start, digits, tmp_path / "third")
    si.train_run(recipe_from(SINGLE_STEP | {"seed": 7}), digits, tmp_path / "first")
    with pytest.raises(si.InputError, match="differ in the weights of init_from"):
        si.train_run(start, digits, tmp_path / "second")


def test_a_start_brings_its_normalisation(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path / "first")
    start = SINGLE_STEP | {"init_from": str(tmp_path / "first")}
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
    quiet = SINGLE_STEP | {"noise": {}, "model": "tests.workflows.test_train:head"}
    si.train_run(recipe_from(quiet), digits, tmp_path / "fits")
    assert si.load(tmp_path / "fits", trust_code=True)(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    messages = {
        "fixed_head": "with 7 logits, digits has 10",
        "no_module": "made no",
        "like_transformers": "returns a SimpleNamespace.*LogitsOf",
    }
    for model, message in messages.items():
        wrong = recipe_from(quiet | {"model": f"tests.workflows.test_train:{model}"})
        with pytest.raises(si.InputError, match=message):
            si.train_run(wrong, digits, tmp_path / "wrong")


def test_the_worst_epoch_is_kept_when_asked_for(tmp_path, digits, monkeypatch):
    scores = iter([0.5, 0.2, 0.4] * 2)
    monkeypatch.setattr(
        "smoothinfer.workflows.train.validate",
        lambda *_, **__: {"clean": 0.9, "attacked": next(scores)},
    )
    for keep in (True, False):
        recipe = recipe_from(TINY | {"epochs": 3, "keep_worst": keep})
        si.train_run(recipe, digits, tmp_path / str(keep))
    card = json.loads((tmp_path / "True" / "worst.json").read_text())
    assert card["results"]["validation"]["epoch"] == 2
    assert si.load(tmp_path / "True", "worst")
    assert not (tmp_path / "False" / "worst.json").exists()


def test_single_steps_say_what_they_risk(tmp_path, capsys):
    command = ["train", "digits/cni-w.yaml", "--data", "digits", "--scale", "smoke", "--set"]
    assert main([*command, "attack.steps=1", "--out", str(tmp_path / "one")]) == 0
    assert "catastrophic overfitting" in " ".join(capsys.readouterr().out.split())
    assert recipe_from(SINGLE_STEP).risk.endswith(
        "use more steps"
    )  # its validation is blind as well
    assert recipe_from(TINY).risk == ""


@pytest.mark.parametrize(
    ("noise", "places"),
    [
        ({"activations": "pni"}, {"0", "3", "7", "12"}),
        ({"inputs": "pni", "weights": "pni"}, WEIGHTS | {"inputs"}),
    ],
)
def test_noise_is_reported_wherever_it_is_learned(noise, places, tmp_path, digits):
    history = si.train_run(recipe_from(SINGLE_STEP | {"noise": noise}), digits[:300], tmp_path)
    strengths = json.loads((tmp_path / "strengths.json").read_text())["1"]
    assert {name.removeprefix("1.") for name in strengths} == places
    assert history.epochs[0]["noise"] == pytest.approx(sum(strengths.values()) / len(strengths))
    assert all(0.2 < value < 0.3 for value in strengths.values())  # alpha begins at 0.25


def test_a_run_on_the_first_images_knows_which_it_held_out(tmp_path, digits):
    si.train_run(recipe_from(SINGLE_STEP), digits, tmp_path / "run")
    command = ["evaluate", str(tmp_path / "run"), "--data", "digits", "--attack", "none"]
    command += ["--samples", "2", "--out", str(tmp_path / "out")]
    assert main([*command, "--split", "validation"]) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["settings"][0]["clean"]["images"] == 100


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalise": {"mean": [0.1]}}, "both mean and std"),
        ({"normalise": {"std": [0.1]}}, "both mean and std"),
        ({"normalise": {"mean": [0.1, 0.2], "std": [0.1]}}, "differ in length"),
        ({"normalise": {"mean": [0.1], "std": [0]}}, "must be positive"),
        (
            {"normalise": {"mean": [0.1] * 3, "std": [0.1] * 3}},
            r"3 values, but an image of shape \(1, 8, 8\) needs 1",
        ),
        ({"crop": 100}, "the images of digits are 8x8"),
        ({"crop": -1}, "crop must be finite and not negative"),
        ({"noise": {"weights": "cni(diagonal=-1)"}}, "diagonal must be at least 0"),
        ({"lr": float("nan")}, "lr must be finite"),
    ],
)
def test_settings_that_do_not_suit_the_images_are_refused(changes, message, digits, tmp_path):
    with pytest.raises(si.InputError, match=message):
        si.train_run(recipe_from(TINY | changes), digits, tmp_path / "run")


def test_a_tenth_is_held_out_by_default_or_what_the_start_held_out(tmp_path, digits):
    """Digits have 500 images here; a run that starts from another validates on its images."""
    free = {**SINGLE_STEP, "validation": {"images": 20}}
    si.train_run(recipe_from(free), digits, tmp_path / "a")
    assert json.loads((tmp_path / "a" / "last.json").read_text())["data"]["held_out"] == 50
    held = {**SINGLE_STEP, "validation": {"held_out": 80, "images": 20}}
    si.train_run(recipe_from(held), digits, tmp_path / "b")
    start = {**free, "init_from": str(tmp_path / "b")}
    si.train_run(recipe_from(start), digits, tmp_path / "c")
    card = json.loads((tmp_path / "c" / "last.json").read_text())
    assert card["data"]["held_out"] == card["recipe"]["validation"]["held_out"] == 80
