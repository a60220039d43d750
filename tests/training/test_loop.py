import hashlib
import importlib.util
import json
import random
import subprocess
import sys
import time
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import smoothinfer as si
from smoothinfer.runtime.modes import evaluating, parameters_frozen
from smoothinfer.recipes import recipe_from
from smoothinfer.training import loop
from smoothinfer.training.losses import adversarial, craft
from smoothinfer.training.schedules import SCHEDULES, one_cycle, steps
from tests.conftest import small_net

TINY = {
    "model": {"name": "smallnet", "width": 4},
    "noise": {"weights": "cni(rank=2, diagonal=0.01)"},
    "attack": {"name": "pgd", "steps": 2},
    "ball": {"name": "linf", "radius": 0.1},
    "epochs": 2,
    "batch_size": 64,
    "crop": 1,
    "flip": False,
    "compile": "off",
    "validation": {"held_out": 100, "images": 50},
}
ATTACK = partial(si.pgd, ball=si.Linf(0.1), steps=2)


@pytest.fixture
def digits():
    return si.load_data("digits", "train", 500)


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", si.LOSSES)
def test_every_loss_is_a_scalar_that_trains(name, images, labels):
    noise = si.CNI(rank=1, diagonal=1e-4, factor=1e-3)
    noisy = si.NoisyModel(small_net(), weights=noise).train()
    optimizer = torch.optim.SGD(noisy.parameters(), lr=0.1)
    values = []
    torch.manual_seed(0)
    for _ in range(60):
        value = si.LOSSES[name](noisy, images, labels, attack=ATTACK)
        assert value.shape == ()
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in noisy.parameters())
        optimizer.step()
        values.append(value.item())
    assert sum(values[-5:]) < 0.8 * sum(values[:5])


def test_the_adversarial_loss_is_equation_6(images, labels):
    net = small_net().eval()  # without noise and batch statistics both terms can be computed
    moved = images.flip(3)
    clean, hard = (F.cross_entropy(net(x), labels) for x in (images, moved))
    for w in (0.0, 0.3, 1.0):
        value = adversarial(net, images, labels, lambda *_: moved, w=w)
        assert value.item() == pytest.approx(((1 - w) * clean + w * hard).item(), rel=1e-5)
    with pytest.raises(si.InputError, match="w must"):
        adversarial(net, images, labels, ATTACK, w=1.5)
    with pytest.raises(si.InputError, match="attack"):
        adversarial(net, images, labels)


def test_crafting_is_in_eval_mode_with_the_noise_on_and_leaves_no_trace(images, labels):
    noisy = si.NoisyModel(small_net(), weights=si.CNI(rank=1)).train()
    noisy.module[1][1].eval()
    modes = [part.training for part in noisy.modules()]
    before = {k: v.clone() for k, v in noisy.state_dict().items()}
    seen = {}

    def attack(model, x, y):
        seen["training"] = any(part.training for part in model.modules())
        seen["noise"] = not torch.equal(model(x), model(x))
        seen["grad"] = any(p.requires_grad for p in model.parameters())
        return x

    craft(attack, noisy, images, labels)
    assert seen == {"training": False, "noise": True, "grad": False}
    assert [part.training for part in noisy.modules()] == modes
    assert all(p.requires_grad for p in noisy.parameters())
    assert all(torch.equal(before[k], v) for k, v in noisy.state_dict().items())


def test_modes_and_gradients_come_back_after_an_error():
    net = small_net().train()
    with pytest.raises(RuntimeError), evaluating(net), parameters_frozen(net):
        raise RuntimeError
    assert all(part.training for part in net.modules())
    assert all(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_a_factor(name):
    values = [SCHEDULES[name](i / 1000) for i in range(1000)]
    assert all(0 <= value <= 1 + 1e-9 for value in values)
    assert max(values) == pytest.approx(1, abs=1e-2)


def test_the_papers_schedule():
    assert [steps(epoch / 400) for epoch in (0, 99, 100, 200, 300)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001]
    )
    rising = [one_cycle(i / 100) for i in range(21)]
    assert rising == sorted(rising)
    with pytest.raises(si.InputError, match="warmup"):
        one_cycle(0.5, warmup=0.0)


def test_a_run_leaves_everything_behind(tmp_path, digits):
    recipe = recipe_from(TINY)
    course = si.train_run(recipe, digits, tmp_path / "run")
    assert [row["epoch"] for row in course.epochs] == [1, 2]
    assert {"loss", "clean", "attacked", "noise", "lr", "seconds"} <= set(course.epochs[0])
    model = si.load(tmp_path / "run")
    assert isinstance(model, si.NoisyModel)
    assert not any(part.training for part in model.modules())
    card = json.loads((tmp_path / "run" / "best.json").read_text())
    assert card["data"]["hash"] == digits.hash
    assert card["data"]["images"] == 400
    assert recipe_from(card["recipe"]).attack.options == {"steps": 2}
    best = max(course.epochs, key=lambda row: row["attacked"])
    assert card["results"]["validation"]["attacked"] == best["attacked"]
    assert len(json.loads((tmp_path / "run" / "log.json").read_text())["epochs"]) == 2
    with pytest.raises(si.InputError, match="another recipe"):
        si.train_run(recipe_from(TINY | {"lr": 0.5}), digits, tmp_path / "run")


def test_training_learns_and_repeats(tmp_path, digits):
    recipe = recipe_from(TINY | {"epochs": 15, "loss": "natural", "noise": {}})
    course = si.train_run(recipe, digits, tmp_path / "one")
    assert course.epochs[-1]["loss"] < 0.7 * course.epochs[0]["loss"]
    si.train_run(recipe, digits, tmp_path / "two")
    files = [tmp_path / run / "last.safetensors" for run in ("one", "two")]
    assert hash_of(files[0]) == hash_of(files[1])
    other = recipe_from(TINY | {"epochs": 1, "loss": "natural", "seed": 1})
    si.train_run(other, digits, tmp_path / "three")
    assert hash_of(tmp_path / "three" / "last.safetensors") != hash_of(files[0])


def test_a_training_killed_at_random_moments_ends_with_the_same_weights(tmp_path, digits):
    """Three epochs in one go, and with kill -9 at 5 random moments."""
    changes = ["epochs=3", "save_seconds=0", "validation.images=100", "attack.steps=4", "crop=1"]
    changes += ["compile=off", "batch_size=16", "model.width=8"]
    command = [sys.executable, "-m", "smoothinfer.cli", "train", "recipes/digits/cni-w.yaml"]
    command += ["--data", "digits", "--limit", "700", "--set", *changes, "--out"]

    def start(name):
        where = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen([*command, str(tmp_path / name)], **where)

    whole = start("whole")
    assert whole.wait() == 0, whole.stderr.read().decode()
    moments = random.Random(0)
    killed = 0
    while killed < 5:
        run = start("killed")
        while not (tmp_path / "killed" / "state.pt").exists():
            time.sleep(0.01)
            assert run.poll() is None, run.stderr.read().decode()
        before = hash_of(tmp_path / "killed" / "state.pt")
        while hash_of(tmp_path / "killed" / "state.pt") == before:
            time.sleep(0.005)  # wait until it goes on, then for a random moment
            if run.poll() is not None:
                break
        time.sleep(moments.uniform(0, 0.2))
        run.kill()
        run.wait()
        killed += 1
    last = start("killed")
    assert last.wait() == 0, last.stderr.read().decode()
    for name in ("last.safetensors", "best.safetensors"):
        assert hash_of(tmp_path / "whole" / name) == hash_of(tmp_path / "killed" / name)
    assert not list((tmp_path / "killed").glob("*.tmp"))


def test_a_training_told_to_stop_saves_and_goes_on(tmp_path, digits, monkeypatch):
    recipe = recipe_from(TINY | {"epochs": 1, "save_seconds": 1e9})
    si.train_run(recipe, digits, tmp_path / "whole")
    answers = iter([False, False, False, False, True, True])
    with monkeypatch.context() as patched:
        patched.setattr(loop, "asked_to_stop", lambda: next(answers))
        with pytest.raises(SystemExit) as end:
            si.train_run(recipe, digits, tmp_path / "told")
    assert end.value.code == 143
    state = torch.load(tmp_path / "told" / "state.pt", weights_only=True)
    assert state["course"]["step"] == 3
    si.train_run(recipe, digits, tmp_path / "told")
    files = [tmp_path / name / "last.safetensors" for name in ("whole", "told")]
    assert hash_of(files[0]) == hash_of(files[1])


def test_training_in_bfloat16(tmp_path, digits):
    course = si.train_run(recipe_from(TINY | {"precision": "bf16"}), digits, tmp_path)
    assert len(course.epochs) == 2
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


def test_a_state_of_another_network_is_refused(tmp_path, digits):
    si.train_run(recipe_from(TINY | {"epochs": 1}), digits, tmp_path / "a")
    other = recipe_from(TINY | {"epochs": 1, "model": {"name": "smallnet", "width": 8}})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "state.pt").write_bytes((tmp_path / "a" / "state.pt").read_bytes())
    with pytest.raises(si.InputError, match="does not fit this recipe"):
        si.train_run(other, digits, tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_size": 4000}, "batch_size"),
        ({"epochs": 0}, "epochs"),
        ({"epoch_images": -1}, "epoch_images must be 0 or more"),
        ({"epoch_images": 63}, "no step to take on 63 images"),
        ({"validation": {"held_out": 0}}, "at least 1"),
        ({"validation": {"held_out": 500}}, "of 500 images"),
    ],
)
def test_impossible_trainings_are_refused(change, said, tmp_path, digits):
    with pytest.raises(si.InputError, match=said):
        si.train_run(recipe_from(TINY | change), digits, tmp_path)


class Steady(nn.Module):
    """A linear network, so that the losses can be written down."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_trades_and_mart_are_their_formulas(images, labels):
    torch.manual_seed(0)
    net, moved = Steady(), (images + 0.1).clamp(0, 1)
    attack = lambda *_: moved  # noqa: E731
    p, q = net(images).softmax(1), net(moved).softmax(1)
    kl = (p * (p / q).log()).sum(1)
    truth = F.cross_entropy(net(images), labels) + 6 * kl.mean()
    assert torch.allclose(si.LOSSES["trades"](net, images, labels, attack), truth, atol=1e-5)
    right = q.gather(1, labels[:, None]).squeeze(1)
    runner_up = q.scatter(1, labels[:, None], 0).amax(1)
    boosted = (-right.log() - (1.0001 - runner_up).log()).mean()
    doubt = 1.0000001 - p.gather(1, labels[:, None]).squeeze(1)
    truth = boosted + 5 * (kl * doubt).mean()
    assert torch.allclose(si.LOSSES["mart"](net, images, labels, attack), truth, atol=1e-5)


def test_the_divergence_of_a_noisy_network_does_not_vanish(images, labels):
    """Two draws differ, so unmoved images pay too; without noise they do not."""
    still = lambda model, x, y: x  # noqa: E731
    torch.manual_seed(0)
    net = Steady()
    noisy = si.NoisyModel(net, weights=si.PNI(alpha=0.5))
    plain = F.cross_entropy(net(images), labels)
    assert torch.allclose(si.LOSSES["trades"](net, images, labels, still), plain, atol=1e-6)
    apart = si.LOSSES["trades"](noisy, images, labels, still, beta=6.0)
    alone = si.LOSSES["trades"](noisy, images, labels, still, beta=0.0)
    assert (apart - alone).item() > 0


def test_pgd_climbs_the_divergence_from_a_start_close_by(images, labels):
    torch.manual_seed(0)
    net = Steady().eval()
    moved = si.ATTACKS["kl_pgd"](net, images, labels, si.Linf(0.1), steps=10, step_size=0.02)
    p, q = net(images).softmax(1), net(moved).softmax(1)
    assert ((p * (p / q).log()).sum(1) > 1e-3).all()
    close = si.pgd(net, images, labels, si.Linf(0.1), steps=1, step_size=0.0, random_start=0.001)
    assert 0 < (close - images).abs().max() < 0.01


@pytest.mark.parametrize("name", ["trades", "mart"])
@pytest.mark.parametrize(
    ("change", "said"), [({"attack": None}, "needs an attack"), ({"beta": -1.0}, "beta")]
)
def test_bad_losses_are_refused(name, change, said, images, labels):
    given = {"attack": ATTACK, **change}
    with pytest.raises(si.InputError, match=said):
        si.LOSSES[name](small_net(), images, labels, **given)


@pytest.mark.parametrize(
    "changes",
    [
        *({"loss": name} for name in si.LOSSES),
        {"ema": 0.9},
        {"accumulate": 3},
        {"epoch_images": 200, "epochs": 5},
        {"loss": "trades", "attack": "kl_pgd(steps=2)"},
    ],
)
def test_every_training_resumes_exactly(changes, tmp_path, digits, monkeypatch):
    recipe = recipe_from(TINY | {"save_seconds": 0.0} | changes)
    si.train_run(recipe, digits, tmp_path / "whole")
    step, taken = loop._Run.step, []

    def fails(run):
        taken.append(1)
        if len(taken) in (4, 8):
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(loop._Run, "step", fails)
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
    changes = {"model": "tests.test_training:Steady64", "noise": {}, "loss": "natural", "epochs": 1}
    weights = []
    for parts in (1, 4):
        recipe = recipe_from(TINY | changes | {"accumulate": parts})
        si.train_run(recipe, digits, tmp_path / str(parts))
        weights.append(si.load(tmp_path / str(parts), "last").state_dict())
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-5)


class Steady64(Steady):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)


def test_patience_ends_a_training_that_does_not_improve(tmp_path, digits):
    recipe = recipe_from(TINY | {"lr": 0.0, "epochs": 9, "patience": 2, "noise": {}})
    course = si.train_run(recipe, digits, tmp_path)
    assert len(course.epochs) < 9
    again = si.train_run(recipe, digits, tmp_path)
    assert again.epochs == course.epochs


def test_a_training_starts_from_another_model(tmp_path, digits):
    quiet = recipe_from(TINY | {"noise": {}, "epochs": 1})
    si.train_run(quiet, digits, tmp_path / "quiet")
    noisy = recipe_from(TINY | {"start": str(tmp_path / "quiet"), "lr": 0.0, "epochs": 1})
    si.train_run(noisy, digits, tmp_path / "noisy")
    one, two = (si.load(tmp_path / name).state_dict() for name in ("quiet", "noisy"))
    assert torch.equal(one["module.1.0.weight"], two["module.1.0.weight"])
    assert len(two) > len(one)  # the noise is new
    assert (tmp_path / "noisy" / "noise.png").stat().st_size > 1000
    assert list(json.loads((tmp_path / "noisy" / "strengths.json").read_text())) == ["1"]
    for start, said in (("nowhere", "no model to start from"), (str(tmp_path / "noisy"), "differ")):
        recipe = recipe_from(TINY | {"noise": {}, "start": start})
        with pytest.raises(si.InputError, match=said):
            si.train_run(recipe, digits, tmp_path / "bad")


def test_the_worst_epoch_is_kept_when_asked_for(tmp_path, digits, monkeypatch):
    scores = iter([0.5, 0.2, 0.4] * 2)
    monkeypatch.setattr(
        "smoothinfer.workflows.train.validate", lambda *_, **__: {"clean": 0.9, "attacked": next(scores)}
    )
    for keep in (True, False):
        recipe = recipe_from(TINY | {"epochs": 3, "keep_worst": keep})
        si.train_run(recipe, digits, tmp_path / str(keep))
    card = json.loads((tmp_path / "True" / "worst.json").read_text())
    assert card["results"]["validation"]["epoch"] == 2
    assert si.load(tmp_path / "True", "worst")
    assert not (tmp_path / "False" / "worst.json").exists()


def test_short_epochs_draw_their_images_afresh(tmp_path, digits, monkeypatch):
    batch, seen = loop._Run._batch, []

    def watched(run, key):
        at = run.course.step % run.steps_per_epoch * 50
        images = batch(run, key)
        seen.append(set(run.order[at : at + 50].tolist()))
        return images

    monkeypatch.setattr(loop._Run, "_batch", watched)
    changes = {"epochs": 3, "epoch_images": 100, "batch_size": 50}
    course = si.train_run(recipe_from(TINY | changes), digits, tmp_path)
    assert [row["epoch"] for row in course.epochs] == [1, 2, 3]
    assert len(seen) == 6
    assert not seen[0] & seen[1]
    assert len(set.union(*seen)) > 150


def test_a_collapse_is_told(tmp_path, digits, capsys, monkeypatch):
    scores = iter([0.5, 0.1])
    monkeypatch.setattr(
        "smoothinfer.workflows.train.validate", lambda *_, **__: {"clean": 0.9, "attacked": next(scores)}
    )
    si.train_run(recipe_from(TINY), digits, tmp_path)
    assert "catastrophic overfitting" in " ".join(capsys.readouterr().out.split())


def test_a_tracker_that_is_not_there_is_refused(tmp_path, digits):
    if importlib.util.find_spec("tensorboard"):
        pytest.skip("tensorboard is installed")
    with pytest.raises(si.InputError, match="tensorboard"):
        si.train_run(recipe_from(TINY | {"trackers": ["tensorboard"]}), digits, tmp_path)
