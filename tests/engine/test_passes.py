"""The engine gives what members give, however it fills its tiles."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine import plan as plan_module
from smoothinfer.engine.passes import Engine, passes, tiles
from smoothinfer.engine.plan import Plan
from smoothinfer.networks import ResNet
from smoothinfer.numerics.precision import VARIABLE
from tests.conftest import bf16_only, small_net

NOISY = {
    "inputs": lambda: si.NoisyModel(small_net(), inputs=si.Gaussian(0.2)),
    "cni": lambda: si.NoisyModel(small_net(), weights=si.CNI(rank=3)),
    "both": lambda: si.NoisyModel(small_net(), si.Gaussian(0.2), si.PNI("channel")),
    "uniform weights": lambda: si.NoisyModel(small_net(), weights=si.Uniform(0.1)),
    "some layers": lambda: si.NoisyModel(small_net(), weights={"1.3": si.CNI(rank=1)}),
    "activations": lambda: si.NoisyModel(small_net(), activations=si.PNI(), shape=(1, 8, 8)),
    "dropout": lambda: si.NoisyModel(nn.Sequential(small_net(), nn.Dropout()), si.Gaussian(0.1)),
    "nothing": lambda: si.NoisyModel(small_net()),
}


def made(name):
    torch.manual_seed(0)
    noisy = NOISY[name]().eval()
    for part in noisy.modules():
        if isinstance(part, nn.Dropout):
            part.train()  # left on
    return noisy


def pictures(count):
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))


def together(run):
    return torch.stack(list(run))


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("count", [1, 5, 40])
def test_a_pass_is_its_member(name, count):
    noisy, images = made(name), pictures(count)
    found = together(passes(noisy, images, samples=6, seed=3, first=2, tile=16))
    with torch.no_grad():
        truth = torch.stack([noisy.member(3, s)(images) for s in range(2, 8)])
    if name == "dropout":  # its masks depend on the place in a batch
        assert found.shape == truth.shape
    else:
        assert torch.allclose(found, truth, atol=1e-4 * float(truth.abs().max()))


@pytest.mark.parametrize("name", [name for name in NOISY if name != "dropout"])
def test_a_pass_does_not_depend_on_other_images_and_passes(name):
    """One image or many, passes alone or together: the same logits, but for rounding."""
    noisy, images = made(name), pictures(40)
    whole = together(passes(noisy, images, samples=9, seed=1))
    near = 1e-5 * float(whole.abs().max())
    for count in (1, 2, 4, 7, 9, 33):
        found = together(passes(noisy, images[:count], 9, seed=1))
        assert torch.allclose(found, whole[:, :count], atol=near)
    resumed = together(passes(noisy, images[:3], samples=4, seed=1, first=5))
    assert torch.allclose(resumed, whole[5:, :3], atol=near)


@pytest.mark.parametrize("noise", [{"inputs": si.Gaussian(0.1)}, {"weights": si.CNI(rank=5)}])
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=bf16_only)])
def test_bits_of_a_resnet_do_not_depend_on_other_images_and_passes(noise, precision):
    with si.isolated_rng(0):
        net = nn.Sequential(si.Normalize([0.5] * 3, [0.25] * 3), ResNet(blocks=1))
        images = torch.rand(40, 3, 32, 32)
    noisy = si.NoisyModel(net, **noise).eval()

    def run(count, samples=7, first=0):
        return together(
            passes(noisy, images[:count], samples, seed=1, first=first, precision=precision)
        )

    # Side by side, sums are rounded to bfloat16 once more than in one convolution alone.
    apart = 0.02 if precision == "bf16" and "weights" in noise else 0.0
    whole = run(40)
    for count in (1, 2, 3, 4, 5, 9, 33):
        assert (run(count) - whole[:, :count]).abs().max() <= apart * whole.abs().max()
    assert (run(3, samples=4, first=3) - whole[3:, :3]).abs().max() <= apart * whole.abs().max()


@pytest.mark.parametrize(
    ("name", "one", "eight", "many"),
    [
        ("inputs", 64, 8, 2),
        ("cni", 64, 8, 1),
        ("activations", 1, 1, 1),
        ("dropout", 1, 1, 1),
    ],
)
def test_few_images_share_a_tile(name, one, eight, many):
    engine = Engine(made(name), pictures(1), seed=0, tile=64)
    assert [engine.passes_at_once(count) for count in (1, 8, 32)] == [one, eight, many]
    assert engine.passes_at_once(1000) == 1


class Greedy(nn.Module):
    """Needs more memory than there is for more than ``most`` images."""

    def __init__(self, most):
        super().__init__()
        self.net, self.most, self.sizes = small_net(), most, []

    def forward(self, images):
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.net(images)


def test_too_little_memory_halves_the_tile_and_is_remembered():
    greedy = Greedy(10).eval()
    noisy = si.NoisyModel(greedy, inputs=si.Gaussian(0.1))
    images = pictures(70)
    engine = Engine(noisy, images, seed=0, tile=64)
    engine.plan = None  # a plan would not call this forward again
    found = torch.cat(list(engine.blocks(images, 0, 3)))
    greedy.most = 1000
    assert torch.equal(found, together(passes(noisy, images, 3, seed=0, tile=8)))
    assert engine.tile == 8
    assert greedy.sizes.count(64) <= 2
    greedy.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        list(engine.blocks(images, 0, 1))


def test_too_little_memory_for_many_passes_runs_fewer_at_once(monkeypatch):
    noisy, images = made("cni"), pictures(2)
    whole = together(passes(noisy, images, 9, seed=0))
    engine = Engine(noisy, images, seed=0)
    run = engine.plan.run_stacked

    def greedy(shared, own, rows):
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(shared, own, rows)

    monkeypatch.setattr(engine.plan, "run_stacked", greedy)
    blocks = list(engine.blocks(images, 0, 9))
    assert 1 < max(len(block) for block in blocks) <= 3
    assert torch.allclose(torch.cat(blocks), whole, atol=1e-5 * float(whole.abs().max()))


def test_other_errors_are_not_taken_for_lack_of_memory(net):
    with pytest.raises(ValueError, match="channels"):
        list(passes(si.NoisyModel(net, si.Gaussian(0.1)), torch.rand(2, 2, 8, 8), 1, seed=0))


def test_the_engine_says_what_it_does():
    images = pictures(2)
    assert "3 normalisations folded" in repr(Engine(made("cni"), images, seed=0))
    assert "added by hooks" in repr(Engine(made("activations"), images, seed=0))
    assert "not a NoisyModel" in repr(Engine(small_net().eval(), images, seed=0))


def test_the_engine_reads_the_weights_as_they_are():
    noisy, images = made("cni"), pictures(3)
    before = together(passes(noisy, images, 2, seed=0))
    member = noisy.member(0, 0)(images)
    with torch.no_grad():
        noisy.module[1][0].weight.mul_(2)
    assert not torch.allclose(together(passes(noisy, images, 2, seed=0)), before)
    assert not torch.allclose(noisy.member(0, 0)(images), member)


@pytest.mark.parametrize("name", ["inputs", "cni"])
def test_bfloat16_agrees_with_fp32(name):
    noisy, images = made(name), pictures(12)
    full, short = (
        together(passes(noisy, images, 8, seed=0, precision=precision))
        for precision in ("fp32", "bf16")
    )
    assert short.dtype == torch.float32
    assert not torch.equal(full, short)
    assert (full - short).abs().max() < 0.03 * full.abs().max()


def test_without_noise_one_pass_is_all_of_them(monkeypatch):
    noisy, images = made("nothing"), pictures(40)
    runs, real = [], Plan.run
    monkeypatch.setattr(Plan, "run", lambda *given: runs.append(1) or real(*given))
    blocks = list(Engine(noisy, images, 0, tile=64).blocks(images, 0, 500))
    assert sum(map(len, blocks)) == 500
    assert len(runs) < 6  # of them 4 look at the plan
    assert torch.allclose(torch.cat(blocks)[499], noisy.module(images), rtol=1e-4, atol=1e-5)


@bf16_only
@pytest.mark.parametrize("inputs", [None, si.Gaussian(0.0)])
def test_without_noise_no_answer_is_overturned_by_rounding(inputs, monkeypatch):
    monkeypatch.setenv(VARIABLE, "bf16")
    noisy, images = made("inputs"), pictures(200)
    plain = noisy.with_inputs(inputs)
    exact = noisy.module(images).detach()
    assert Engine(noisy, images, 0).precision == "bf16"
    engine = Engine(plain, images, 0)
    assert engine.precision == "fp32"
    assert "no noise" in repr(engine)
    assert torch.allclose(together(engine.blocks(images, 0, 1))[0], exact, rtol=1e-4, atol=1e-5)
    assert Engine(plain, images, 0, precision="bf16").precision == "bf16"


def test_a_compiled_plan_gives_the_same_and_a_failing_compiler_does_no_harm(monkeypatch):
    noisy, images = made("cni"), pictures(20)
    plain = together(passes(noisy, images, 2, seed=0))

    def fails(*_, **__):
        def run(*_):
            raise TypeError("no such backend")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    engine = Engine(noisy, images, seed=0, compile=True)
    with pytest.warns(UserWarning, match="no such backend"):
        found = torch.cat(list(engine.blocks(images, 0, 2)))
    assert torch.equal(found, plain)


@pytest.mark.slow
def test_a_compiled_plan_gives_the_same():
    noisy, images = made("cni"), pictures(20)
    engine = Engine(noisy, images, seed=0, compile=True)
    found = torch.cat(list(engine.blocks(images, 0, 2)))
    assert "compiled" in repr(engine)
    plain = together(passes(noisy, images, 2, seed=0))
    assert torch.allclose(found, plain, atol=1e-4 * float(plain.abs().max()))


@pytest.mark.parametrize("count", range(1, 70))
def test_tiles_hold_every_image_once(count):
    images = torch.arange(count).view(-1, 1, 1, 1).float()
    found = list(tiles(images, 32))
    assert torch.equal(torch.cat([part[:used] for part, used in found]), images)
    assert {len(part) for part, _ in found} <= {8, 16, 32}
    padded = sum(len(part) for part, _ in found) - count
    assert padded <= 8


def test_pixels_that_are_no_numbers_get_no_vote(net, images):
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(si.InputError, match="NaN or infinite pixels"):
        next(passes(noisy, images, 1, seed=0))


def test_precision_holds_within_an_autocast_of_the_caller(net, images):
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1)).eval()
    wanted = next(passes(noisy, images, 1, seed=0, precision="fp32"))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(next(passes(noisy, images, 1, seed=0, precision="fp32")), wanted)


class Branching(nn.Module):
    """A network that no trace can follow."""

    def __init__(self, random=False, mixing=False):
        super().__init__()
        self.linear, self.random, self.mixing = nn.Linear(16, 3), random, mixing
        self.seen = []

    def forward(self, images):
        self.seen.append(len(images))
        flat = images.flatten(1)
        if flat.sum() > 1e9:
            return flat
        if self.random and torch.rand(()) > 0.5:
            flat = -flat
        if self.mixing:
            flat = flat - flat.mean(0)
        return self.linear(flat)


def test_a_network_without_a_plan_runs_its_passes_as_one_batch():
    noisy = si.NoisyModel(Branching(), inputs=si.Gaussian(0.1)).eval()
    images = torch.rand(1, 1, 4, 4)
    engine = Engine(noisy, images, seed=3)
    assert engine.batched
    assert "passes in a batch" in repr(engine)
    noisy.module.seen.clear()
    together = torch.cat(list(engine.blocks(images, 0, 64)))
    assert len(noisy.module.seen) <= 2  # a batch, not 64 calls
    alone = torch.stack([noisy.member(3, s)(images) for s in range(64)])
    assert torch.allclose(together, alone, atol=1e-5)


class Asking(nn.Module):
    """Asks the whole batch whether its pixels are beyond 1, which noise makes them."""

    def forward(self, images):
        return (images / 255 if images.max() > 1.5 else images).flatten(1)[:, :3]


@pytest.mark.parametrize("first", [torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)])
@pytest.mark.parametrize("module", [Asking(), Branching(mixing=True)])
def test_a_batch_that_answers_as_a_whole_is_found_on_any_first_image(module, first):
    noisy = si.NoisyModel(module, inputs=si.Gaussian(0.25)).eval()
    Engine(noisy, first, seed=0)
    assert not Engine(noisy, torch.rand(1, 1, 4, 4), seed=0).batched


@pytest.mark.parametrize(
    "noisy",
    [
        si.NoisyModel(Branching(random=True), inputs=si.Gaussian(0.1)).eval(),
        si.NoisyModel(Branching(mixing=True), inputs=si.Gaussian(0.1)).eval(),
        si.NoisyModel(Branching(), inputs=si.Gaussian(0.1), weights=si.PNI()).eval(),
        Branching(random=True).eval(),
    ],
    ids=["random", "mixing", "weights", "plain"],
)
def test_passes_that_differ_within_stay_apart(noisy):
    engine = Engine(noisy, torch.rand(2, 1, 4, 4), seed=3)
    assert not engine.batched
    assert engine.passes_at_once(1) == 1


def test_a_failed_trace_is_not_tried_again(monkeypatch):
    noisy = si.NoisyModel(Branching(), inputs=si.Gaussian(0.1)).eval()
    tried = []
    trace = plan_module.trace
    monkeypatch.setattr(plan_module, "trace", lambda module: tried.append(1) or trace(module))
    smooth = si.SmoothedClassifier(noisy, samples=8)
    for _ in range(3):
        smooth.predict(torch.rand(2, 1, 4, 4))
    assert len(tried) == 1
    noisy.module.linear = nn.Linear(16, 3)  # another layer: there may be a plan now
    smooth.predict(torch.rand(2, 1, 4, 4))
    assert len(tried) == 2
