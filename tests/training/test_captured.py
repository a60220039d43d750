"""Recorded work does at every call what the work itself does."""

from functools import partial

import pytest
import torch

from smoothinfer.attacks import pgd
from smoothinfer.config.components import Component
from smoothinfer.data import load_data
from smoothinfer.errors import InputError
from smoothinfer.networks import smallnet
from smoothinfer.noise import PNI, NoisyModel
from smoothinfer.numerics.balls import Linf
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.numerics.recording import is_recording, recording
from smoothinfer.training.captured import CapturedWork
from smoothinfer.training.compiling import compile_passes, record_step
from smoothinfer.training.loop import train
from smoothinfer.training.losses import adversarial
from smoothinfer.training.options import TrainingOptions


class Again:
    """Stands in for a CUDA graph where there is no GPU: the recorded work, once more."""

    def __init__(self, work):
        self.work = work

    def replay(self):
        with recording():
            self.work()


NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
DEVICES = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NO_GPU)])


def captured(work, device):
    return CapturedWork(work, torch.device(device), Again if device == "cpu" else None)


@DEVICES
def test_every_call_does_the_work_once_on_its_own_arguments(device):
    total = torch.zeros(3, device=device)

    def work(numbers, factor):
        total.add_(factor * numbers)
        return total.clone()

    run, expected, kept = captured(work, device), torch.zeros(3), []
    for step in range(1, 8):
        numbers = torch.full((3,), float(step))
        expected += 0.5 * numbers
        kept.append((run(numbers.to(device), 0.5), expected.clone()))
    for result, wanted in kept:  # what is kept of one call outlives the next
        assert torch.equal(result.cpu(), wanted)


@DEVICES
def test_a_seed_before_the_call_names_its_random_numbers(device):
    run, seen = captured(lambda like: torch.rand_like(like), device), []
    for seed in (1, 2, 3, 4, 5, 1):
        with isolated_rng(seed):
            seen.append(run(torch.zeros(4, device=device)).cpu())
    assert torch.equal(seen[0], seen[-1])  # as it is, and replayed
    assert all(not torch.equal(one, seen[0]) for one in seen[1:-1])


@DEVICES
def test_only_the_first_call_may_check_its_input(device):
    checked = []

    def work(numbers):
        checked.append(not is_recording())
        return 2 * numbers

    run = captured(work, device)
    for _ in range(4):
        run(torch.ones(2, device=device))
    assert checked[0]
    assert not any(checked[1:])


@DEVICES
def test_work_that_seeds_itself_runs_as_it_is(device):
    calls = []

    def work(numbers):
        with isolated_rng(len(calls)):
            calls.append(len(calls))
            return numbers + torch.rand_like(numbers)

    run = captured(work, device)
    with pytest.warns(UserWarning, match="not recorded.* a seed of its own"):
        seen = [run(torch.zeros(2, device=device)).cpu() for _ in range(6)]
    assert calls == list(range(6))
    assert len({tuple(each.tolist()) for each in seen}) == 6


@NO_GPU
def test_work_that_waits_for_the_gpu_runs_as_it_is():
    def work(numbers):
        return numbers * 2 if numbers.sum().item() > 0 else numbers

    run = captured(work, "cuda")
    with pytest.warns(UserWarning, match="not recorded.* waits for the GPU"):
        seen = [run(torch.full((2,), value, device="cuda")).tolist() for value in (1.0, -1.0) * 3]
    assert seen == [[2.0, 2.0], [-1.0, -1.0]] * 3


def test_a_failed_recording_is_told_in_a_line():
    def fail(work):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    run = CapturedWork(lambda numbers: numbers, torch.device("cpu"), fail)
    for _ in range(3):
        run(torch.zeros(1))
    with pytest.raises(InputError, match="not permitted when stream is capturing: choose compile:"):
        run(torch.zeros(1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("compile", ["graphs", "full"])
def test_recording_needs_a_gpu(compile):
    with pytest.raises(InputError, match=f"compile: {compile} needs a GPU"):
        record_step(torch.sin, compile, torch.device("cpu"))


@NO_GPU
@pytest.mark.parametrize("compile", ["on", "graphs", "full"])
def test_a_training_ends_where_one_that_runs_as_it_is_ends(compile, tmp_path):
    data, ends = load_data("digits", "train"), []
    for how in ("off", compile):
        torch.manual_seed(0)
        model = NoisyModel(smallnet(), weights=PNI())
        numbers = {"epochs": 1, "batch_size": 128, "lr": 0.05, "precision": "fp32"}
        options = TrainingOptions(**numbers, schedule=Component("constant"), compile=how)
        craft = partial(pgd, ball=Linf(0.1), steps=2, precision="fp32")
        loss = partial(adversarial, attack=craft)
        out, validate = tmp_path / how, lambda model: {"attacked": 0.0}
        train(model, loss, data, options, out, validate, lambda *a: None)
        ends.append(model.state_dict())
    for name, tensor in ends[0].items():
        assert torch.allclose(tensor.float(), ends[1][name].float(), atol=5e-3), name


@pytest.mark.slow  # the compiler takes a minute
def test_compiled_passes_are_the_passes():
    """On a CPU too: the training's own passes, and the folded plan under the attack."""
    images, labels = torch.rand(8, 3, 8, 8), torch.arange(8)
    found = []
    for how in ("off", "on"):
        torch.manual_seed(0)
        model = NoisyModel(smallnet(channels=3, width=8), weights=PNI(alpha=0.0))
        running = compile_passes(model, how).train()
        craft = partial(pgd, ball=Linf(8 / 255), steps=2, random_start=False, precision="fp32")
        value = adversarial(running, images, labels, craft)
        value.backward()
        found.append((value.item(), [p.grad.clone() for p in model.module.parameters()]))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-4, rtol=1e-3)
