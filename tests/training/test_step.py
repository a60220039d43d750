"""A step of the loop is the step that anybody would write, bit for bit, recorded or not."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import smoothinfer as si
from smoothinfer.data import ImageData, to_float
from smoothinfer.numerics.randomness import derive_seed, isolated_rng, stream
from smoothinfer.numerics.recording import recording
from smoothinfer.recipes import load_recipe
from smoothinfer.training.augmentation import draw_shifts, move
from smoothinfer.training.loop import Run, train

RECIPES = sorted(p.stem for p in Path("recipes/cifar10").glob("*.yaml") if "wrn" not in p.stem)
SMALL = [
    *("model=smallnet(width=8)", "init_from=null", "epochs=1", "batch_size=8", "lr=0.05"),
    *("epoch_images=40", "precision=fp32", "crop=2"),
]
STEPS = 5
# These hold the noise of a step by seeds, which a recorded step would repeat.
SEEDED = ("certified-smoothadv", "certified-smoothmix")


class Again:
    """Stands in for a CUDA graph where there is no GPU: the recorded work, once more."""

    def __init__(self, work):
        self.work = work  # a recording runs nothing

    def replay(self):
        with recording():
            self.work()


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (48, 3, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(48) % 10
    return ImageData("random", pixels, labels, tuple(map(str, range(10))))


def recipe_of(name, *more):
    return load_recipe(f"recipes/cifar10/{name}.yaml", [*SMALL, *more])


def ran(recipe, images, out, capture=None):
    """The weights after a training, and the run's losses."""
    model = recipe.build_model(images.shape, 10)
    model.train()
    losses = []

    def save(name, trained, row):
        losses.append(row["loss"])

    train(
        model,
        recipe.build_loss(),
        images,
        recipe,
        out,
        lambda model: {"attacked": 0.5, "clean": 0.5},
        save,
        capture=capture,
    )
    return model.state_dict(), losses[0]


def naive(recipe, images, fused=None):
    """The same training, written without the library's loop."""
    model = recipe.build_model(images.shape, 10)
    model.to(memory_format=torch.channels_last)
    loss = recipe.build_loss()
    noisy = ("weight_noises.", "activation_noises.", "inputs.")
    named = list(model.named_parameters())
    groups = [
        {"params": [p for n, p in named if not n.startswith(noisy)], "relative": 1.0},
        {"params": [p for n, p in named if n.startswith(noisy)], "relative": recipe.noise_lr},
    ]
    if recipe.noise_decay is not None:
        groups[1]["weight_decay"] = recipe.noise_decay
    optimizer = torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=fused,
    )
    order = torch.randperm(len(images), generator=stream(0, "order", 0))
    losses = []
    for step in range(STEPS):
        key = derive_seed(0, "step", step)
        rows = order[8 * step :][:8]
        shifts = draw_shifts(8, recipe.crop, stream(key, "augment"))
        pixels = move(images.pixels[rows], shifts, recipe.crop, recipe.flip)
        shown = to_float(pixels).contiguous(memory_format=torch.channels_last)
        rate = recipe.learning_rate_at(step / STEPS)
        for group in optimizer.param_groups:  # a recorded step has it as a tensor
            group["lr"] = (torch.tensor(rate) if fused else rate) * group["relative"]
        model.train()
        optimizer.zero_grad()
        as_recorded = recording() if fused and step else nullcontext()  # the first is checked
        with isolated_rng(derive_seed(key, "process", 0)), as_recorded:
            value = loss(model, shown, images.labels[rows])
            value.backward()
        if recipe.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        losses.append(value.item())
    return model.state_dict(), sum(losses) / STEPS


def same(one, other):
    return [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]


@pytest.mark.parametrize("name", RECIPES)
def test_the_loop_takes_the_steps_of_a_naive_one(name, images, tmp_path):
    recipe = recipe_of(name)
    weights, loss = ran(recipe, images, tmp_path)
    expected, its_loss = naive(recipe, images)
    assert same(weights, expected) == []
    assert loss == pytest.approx(its_loss, rel=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recorded_step_is_the_step(name, images, tmp_path, recwarn):
    recipe = recipe_of(name, "compile=graphs")
    weights, loss = ran(recipe, images, tmp_path, Again)
    told = [each for each in recwarn if "not recorded" in str(each.message)]
    assert bool(told) == (name in SEEDED)  # which says why, and runs as before
    expected, its_loss = naive(recipe, images, fused=True)
    assert same(weights, expected) == []
    assert loss == pytest.approx(its_loss, rel=1e-6)


class NoWaits(TorchDispatchMode):
    """Refuses what makes the CPU wait for a GPU: a number or a size that depends on contents."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        waits = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique")
        name = str(function).split(".")[1]
        boolean = name == "index" and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        if name in waits or boolean:
            raise AssertionError(f"{function} waits for the device")
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recorded_step_never_waits_nor_seeds(name, images, tmp_path):
    recipe = recipe_of(name)
    model = recipe.build_model(images.shape, 10)
    run = Run(model, recipe.build_loss(), images, recipe, tmp_path, {}, None)
    for number in range(2):
        run.step()
        pixels, labels, shifts = run.batches.batch(number)
        inputs = (*shifts, torch.tensor(0.05))
        run.running.train()
        for group in run.optimizer.param_groups:  # on a CPU the fused form reads the rate
            group["relative"] = 0.0
        run.take_step.optimizer = Skipped(run.optimizer)
        with recording() as faults, NoWaits():
            run.take_step(pixels, labels, *inputs)
        run.take_step.optimizer = run.optimizer
        assert bool(faults) == (name in SEEDED)


class Skipped:
    """An optimizer that takes no step: on a CPU a step with the rate as a tensor reads it."""

    def __init__(self, optimizer):
        self.param_groups, self.zero_grad = optimizer.param_groups, optimizer.zero_grad

    def step(self):
        pass


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_recorded_training_resumes_to_the_same_weights(ema, images, tmp_path, monkeypatch):
    recipe = recipe_of("cni-w", "compile=graphs", "save_seconds=0", f"ema={ema}")
    whole, _ = ran(recipe, images, tmp_path / "whole", Again)
    step = Run.step

    def interrupt(run):
        if run.history.step == 3:
            raise KeyboardInterrupt
        return step(run)

    monkeypatch.setattr(Run, "step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ran(recipe, images, tmp_path / "cut", Again)
    monkeypatch.undo()
    cut, _ = ran(recipe, images, tmp_path / "cut", Again)
    assert same(whole, cut) == []


def test_a_recorded_training_that_diverges_is_refused_at_its_step(images, tmp_path):
    recipe = recipe_of("natural", "compile=graphs", "lr=1e20", "schedule=constant")
    with pytest.raises(si.InputError, match=r"(the loss is|weights are) .* step [2-4]: lower lr"):
        ran(recipe, images, tmp_path, Again)
