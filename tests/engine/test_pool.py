"""A pool of drawn networks: the same networks as fresh ones, secret, and renewed."""

import copy
import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.passes import Engine
from smoothinfer.engine.pool import BLOCK, draw_block
from tests.conftest import bf16_only

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """Every kind of layer that is laid out, and some that are not."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.strided = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.point = nn.Conv2d(16, 32, 1, stride=2)
        self.grouped = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.odd = nn.Conv2d(32, 10, 3, padding=1, padding_mode="reflect")
        self.last = nn.Linear(10 * 4 * 4, 5)

    def forward(self, images):
        features = self.norm(self.first(images)).relu()
        both = (self.strided(features) + self.point(features)).relu()
        return self.last(self.odd(self.grouped(both)).flatten(1))


def noisy(**options):
    torch.manual_seed(0)
    return si.NoisyModel(Residual(), weights=si.CNI(rank=2, diagonal=0.01), **options).eval()


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=bf16_only)])
@pytest.mark.parametrize("images", [1, 5])
def test_laid_out_networks_answer_as_they_did_before(precision, images):
    model, shown = noisy(), torch.rand(images, *SHAPE)
    engine = Engine(model, shown, seed=0, precision=precision)
    drawn = engine.sampler.draw_block([torch.Generator().manual_seed(s) for s in range(6)])
    rows = shown.expand(6, *shown.shape)
    plain = engine.plan.run_stacked(engine.sampler.fixed, drawn, rows)
    laid_out = engine.plan.pack(drawn, engine.sampler.fixed)
    packed = engine.plan.run_stacked(engine.sampler.fixed, laid_out, rows)
    close = {"fp32": 1e-5, "bf16": 2e-2}[precision]
    assert torch.allclose(plain, packed, atol=close, rtol=close)


def test_its_votes_are_those_of_fresh_passes():
    """The share of each class agrees within 5 standard errors, over pools and images."""
    model, images = noisy(inputs=si.Gaussian(0.3)), torch.rand(4, *SHAPE)
    passes, pools = 2 * BLOCK, 40
    fresh = si.SmoothedClassifier(model, passes * pools, seed=1).predict(images).counts.double()
    pooled = torch.zeros_like(fresh)
    for _ in range(pools):
        smooth = si.SmoothedClassifier(model, passes, pool=si.NetworkPool(passes, renewed=0))
        pooled += smooth.predict(images).counts
    n = passes * pools
    share = (fresh + pooled) / (2 * n)
    error = (2 * share * (1 - share) / n).sqrt()
    assert ((fresh - pooled).abs() / n <= 5 * error + 1e-9).all()
    assert (fresh / n).max() < 0.999  # otherwise the comparison shows nothing


def test_a_vote_uses_no_network_twice_and_then_draws():
    sampler = Engine(noisy(), torch.rand(1, *SHAPE), seed=0).sampler
    blocks = si.NetworkPool(3 * BLOCK, renewed=0).blocks(sampler)
    drawn = [next(blocks)["last.weight"].weight for _ in range(5)]
    networks = torch.cat(drawn).flatten(1)
    assert len(networks.unique(dim=0)) == 5 * BLOCK


def test_votes_share_networks_until_they_are_renewed():
    model, images = noisy(), torch.rand(1, *SHAPE)
    pool = si.NetworkPool(BLOCK, renewed=0)
    smooth = si.SmoothedClassifier(model, BLOCK, rule="soft", pool=pool)
    sampler = smooth.engine(images, 0, pool).sampler
    first = smooth.predict(images).scores
    assert torch.equal(first, smooth.predict(images).scores)
    assert pool.renew(sampler)
    assert not torch.equal(first, smooth.predict(images).scores)
    assert pool.renewals == BLOCK


def test_other_weights_fill_the_pool_anew():
    model, images = noisy(), torch.rand(1, *SHAPE)
    smooth = si.SmoothedClassifier(model, BLOCK, rule="soft", pool=si.NetworkPool(BLOCK, 0))
    before = smooth.predict(images).scores
    old = smooth.engine(images, 0).sampler
    with torch.no_grad():
        model.module.last.weight.zero_()
        model.module.last.bias.copy_(torch.arange(5.0))
    assert not torch.equal(before, smooth.predict(images).scores)
    assert not smooth.pool.renew(old)  # its thread ends


def test_the_background_renews_and_ends_with_the_pool():
    model, images = noisy(), torch.rand(1, *SHAPE)
    pool = si.NetworkPool(BLOCK, renewed=BLOCK * 50)
    smooth = si.SmoothedClassifier(model, BLOCK, pool=pool)
    smooth.predict(images)
    until = time.monotonic() + 20
    while pool.renewals == 0 and time.monotonic() < until:
        time.sleep(0.02)
    assert pool.renewals > 0
    gone = weakref.ref(pool)
    del pool, smooth
    while time.monotonic() < until:
        gc.collect()
        if gone() is None and "pool" not in {each.name for each in threading.enumerate()}:
            return
        time.sleep(0.05)
    pytest.fail("the thread lives on")


def test_a_copy_holds_no_networks():
    model, images = noisy(), torch.rand(1, *SHAPE)
    smooth = si.SmoothedClassifier(model, BLOCK, rule="soft", pool=si.NetworkPool(BLOCK, 0))
    answer = smooth.predict(images).scores
    assert not torch.equal(answer, copy.deepcopy(smooth).predict(images).scores)


def test_many_images_and_models_without_weight_noise_draw_as_ever():
    pool = si.NetworkPool(BLOCK, renewed=0)
    many = torch.rand(9, *SHAPE)
    si.SmoothedClassifier(noisy(), BLOCK, pool=pool).predict(many)
    assert not Engine(noisy(), many[:1], 0).pooled
    assert Engine(noisy(), many[:1], 0, pool=pool).pooled
    plain = si.NoisyModel(Residual(), inputs=si.Gaussian(0.1)).eval()
    assert not Engine(plain, many[:1], 0, pool=pool).pooled
    assert "from a pool" in si.SmoothedClassifier(noisy(), pool=pool).explain(many[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((10,), "at least 32"), ((33,), "multiple of 32"), ((64, -1.0), "renewed must be at least 0")],
)
def test_wrong_numbers_are_refused(arguments, message):
    with pytest.raises(si.InputError, match=message):
        si.NetworkPool(*arguments)


def test_a_seed_and_a_pool_do_not_go_together():
    with pytest.raises(si.InputError, match="either seed or pool"):
        si.SmoothedClassifier(noisy(), seed=0, pool=si.NetworkPool())


def test_streams_differ_from_block_to_block():
    sampler = Engine(noisy(), torch.rand(1, *SHAPE), seed=0).sampler
    one, other = (draw_block(sampler)["last.weight"].weight for _ in range(2))
    assert not torch.equal(one, other)


def test_evaluations_and_attacks_draw_afresh_and_can_be_repeated():
    images, labels = torch.rand(4, *SHAPE), torch.arange(4)
    model = noisy(inputs=si.Gaussian(0.3))
    plain = si.SmoothedClassifier(model, BLOCK)
    pooled = si.SmoothedClassifier(model, BLOCK, pool=si.NetworkPool(BLOCK, renewed=0))
    found = [si.evaluate(each, (images, labels), attack="fgsm") for each in (plain, pooled)]
    assert found[0] == found[1]
    torch.manual_seed(0)
    first = pooled(images)
    torch.manual_seed(0)
    assert torch.equal(first, pooled(images))


def test_a_vote_that_looks_often_wastes_no_network(monkeypatch):
    """Looks after 4, 8, 12, ... passes take the same networks as one look at the end."""
    model, images = noisy(), torch.rand(1, *SHAPE)
    engine = Engine(model, images, 0, pool=si.NetworkPool(2 * BLOCK, renewed=0))
    runs, run = [], engine.plan.run_stacked
    monkeypatch.setattr(engine.plan, "run_stacked", lambda *a: runs.append(1) or run(*a))
    found = []
    for first in range(0, 2 * BLOCK, 4):
        found += list(engine.blocks(images, first, 4))
    assert len(runs) == 2
    assert torch.cat(found).shape[0] == 2 * BLOCK
    assert len(torch.cat(found).flatten(1).unique(dim=0)) == 2 * BLOCK
    list(engine.blocks(images.clone(), 2 * BLOCK, 4))  # other images start anew
    assert len(runs) == 3


def test_a_process_ends_cleanly_while_its_pool_is_renewed():
    program = (
        "import torch, smoothinfer as si\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 300))\n"
        "noisy = si.NoisyModel(net, weights=si.CNI(rank=2, diagonal=0.01)).eval()\n"
        "pool = si.NetworkPool(32, renewed=32e3)\n"
        "si.SmoothedClassifier(noisy, 32, pool=pool).predict(torch.rand(1, 3, 32, 32))\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
