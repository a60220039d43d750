import hashlib

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.recipes import recipe_from
from smoothinfer.training import loop
from smoothinfer.training.batches import Batches
from tests.conftest import TINY


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def linear():
    """A network without batch statistics."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def test_training_learns_and_repeats(tmp_path, digits):
    recipe = recipe_from(TINY | {"epochs": 15, "loss": "natural", "noise": {}})
    history = si.train_run(recipe, digits, tmp_path / "one")
    assert history.epochs[-1]["loss"] < 0.7 * history.epochs[0]["loss"]
    si.train_run(recipe, digits, tmp_path / "two")
    files = [tmp_path / run / "last.safetensors" for run in ("one", "two")]
    assert hash_of(files[0]) == hash_of(files[1])
    other = recipe_from(TINY | {"epochs": 1, "loss": "natural", "seed": 1})
    si.train_run(other, digits, tmp_path / "three")
    assert hash_of(tmp_path / "three" / "last.safetensors") != hash_of(files[0])


NOISE = {"weights": "cni(rank=1)", "inputs": "gaussian(sigma=0.1)"}  # which some losses need


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": name, "noise": NOISE} for name in si.LOSSES),
        {"ema": 0.9},
        {"accumulate": 3},
        {"epoch_images": 200, "epochs": 5},
        {"loss": "trades", "attack": "kl_pgd(steps=2)"},
    ],
)
def test_every_training_resumes_exactly(changes, tmp_path, digits, monkeypatch):
    recipe = recipe_from(TINY | {"save_seconds": 0.0} | changes)
    si.train_run(recipe, digits, tmp_path / "whole")
    step, taken = loop.Run.step, []

    def interrupt(run):
        taken.append(1)
        if len(taken) in (4, 8):
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(loop.Run, "step", interrupt)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            si.train_run(recipe, digits, tmp_path / "cut")
    si.train_run(recipe, digits, tmp_path / "cut")
    assert len(taken) > 8
    for name in ("last.safetensors", "best.safetensors", "epochs.csv"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("whole", "cut"))
        if name == "epochs.csv":  # but for the times
            one, two = ([line.split(b",")[:-2] for line in x.splitlines()] for x in (one, two))
        assert one == two


def test_training_in_bfloat16(tmp_path, digits):
    history = si.train_run(recipe_from(TINY | {"precision": "bf16"}), digits, tmp_path)
    assert len(history.epochs) == 2
    model = si.load(tmp_path)
    assert all(p.dtype == torch.float32 for p in model.parameters())


@pytest.mark.slow
def test_training_compiled_is_training(tmp_path, digits):
    """The first steps are those of the plain network, to rounding; about a minute."""
    losses = []
    for compiled in ("on", "off"):
        recipe = recipe_from(TINY | {"compile": compiled, "noise": {}, "epochs": 1})
        losses.append(si.train_run(recipe, digits, tmp_path / compiled).epochs[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_the_average_of_the_weights_is_what_is_saved(tmp_path, digits):
    plain, average = (
        si.train_run(recipe_from(TINY | {"ema": ema}), digits, tmp_path / str(ema))
        for ema in (0.0, 0.99)
    )
    assert plain.epochs[-1]["loss"] == average.epochs[-1]["loss"]  # the same training underneath
    one, two = (si.load(tmp_path / ema, "last").state_dict() for ema in ("0.0", "0.99"))
    name = next(name for name in one if name.endswith("0.weight"))
    assert not torch.equal(one[name], two[name])


def test_parts_of_a_batch_add_up_to_it(tmp_path, digits):
    """Without batch statistics and noise, a batch in parts gives the same gradient."""
    changes = {
        "model": "tests.training.test_loop:linear",
        "noise": {},
        "loss": "natural",
        "epochs": 1,
    }
    weights = []
    for parts in (1, 4):
        recipe = recipe_from(TINY | changes | {"accumulate": parts})
        si.train_run(recipe, digits, tmp_path / str(parts))
        weights.append(si.load(tmp_path / str(parts), "last", trust_code=True).state_dict())
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-5)


def test_patience_ends_a_training_that_does_not_improve(tmp_path, digits):
    recipe = recipe_from(TINY | {"lr": 0.0, "epochs": 9, "patience": 2, "noise": {}})
    history = si.train_run(recipe, digits, tmp_path)
    assert len(history.epochs) < 9
    again = si.train_run(recipe, digits, tmp_path)
    assert again.epochs == history.epochs


def test_short_epochs_draw_their_images_afresh(tmp_path, digits, monkeypatch):
    batch, seen = Batches.batch, []

    def watch(batches, step):
        pixels, labels, shifts = batch(batches, step)
        seen.append({image.numpy().tobytes() for image in pixels})
        return pixels, labels, shifts

    monkeypatch.setattr(Batches, "batch", watch)
    changes = {"epochs": 3, "epoch_images": 100, "batch_size": 50}
    history = si.train_run(recipe_from(TINY | changes), digits, tmp_path)
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3]
    assert len(seen) == 6
    assert not seen[0] & seen[1]
    assert len(set.union(*seen)) > 150


def test_a_collapse_is_reported(tmp_path, digits, capsys, monkeypatch):
    scores = iter([0.5, 0.1])
    monkeypatch.setattr(
        "smoothinfer.workflows.train.validate",
        lambda *_, **__: {"clean": 0.9, "attacked": next(scores)},
    )
    si.train_run(recipe_from(TINY), digits, tmp_path)
    assert "catastrophic overfitting" in " ".join(capsys.readouterr().out.split())


QUIET = {"noise": {}, "loss": "natural", "schedule": "constant", "epochs": 1}


@pytest.mark.parametrize(
    ("batch_size", "message"),
    [
        (64, r"the loss is (nan|inf) at step 2: lower lr"),
        (400, "validation after step 1: .*lower lr"),
    ],
    ids=["in an epoch", "at its end"],
)
def test_a_training_that_diverges_names_the_step_and_the_remedy(
    batch_size, message, tmp_path, digits
):
    recipe = recipe_from(TINY | QUIET | {"lr": 1e30, "batch_size": batch_size})
    with pytest.raises(si.InputError, match=message):
        si.train_run(recipe, digits, tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_weights_that_are_not_finite_end_a_training_at_their_step(tmp_path, digits, monkeypatch):
    def spoil(optimizer, closure=None):
        optimizer.param_groups[0]["params"][0].data[0] = float("nan")

    monkeypatch.setattr(torch.optim.SGD, "step", spoil)
    recipe = recipe_from(TINY | QUIET | {"batch_size": 400})  # the first step ends the epoch
    with pytest.raises(si.InputError, match="weights are nan after step 1: lower lr or set clip"):
        si.train_run(recipe, digits, tmp_path)
    assert not (tmp_path / "last.safetensors").exists()


def test_noise_of_rank_zero_is_trained(tmp_path, digits):
    changes = {"noise": {"weights": "cni(rank=0)"}, "epochs": 1, "attack": "fgsm"}
    si.train_run(recipe_from(TINY | changes), digits, tmp_path)


@pytest.mark.parametrize("crop", [9, 10**9])
def test_a_shift_by_more_than_a_picture_is_refused(crop, tmp_path, digits):
    with pytest.raises(si.InputError, match=f"crop shifts by up to {crop} pixels"):
        si.train_run(recipe_from(TINY | {"crop": crop}), digits, tmp_path)
