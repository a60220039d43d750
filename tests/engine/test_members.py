"""One pass, held fixed: of a noisy model by its own streams, of other modules by their seeds."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.engine.members import SeededPasses, member_of, run_passes, run_seeded


def test_members_are_deterministic_and_different(noisy, images):
    a, b, c = noisy.member(0, 1), noisy.member(0, 1), noisy.member(0, 2)
    assert torch.equal(a(images), b(images))
    assert torch.equal(a(images), a(images))
    assert not torch.equal(a(images), c(images))
    assert not torch.equal(a(images), noisy.member(1, 1)(images))
    assert torch.equal(noisy.member(0, 1)(images), a(images))  # nothing drawn between matters


@pytest.mark.parametrize("per_image", [False, True])
def test_noise_per_image_is_keyed_by_pixels(per_image, images):
    model = si.NoisyModel(nn.Flatten(), inputs=si.Gaussian(0.3)).eval()
    member = model.member(0, 0, per_image)
    steps = member(images) - images.flatten(1)
    assert torch.allclose(steps[0], steps[1], atol=1e-6) != per_image
    assert torch.equal(member(images[3:]), member(images)[3:])


def dropout_net():
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3)).eval()
    module[1].train()  # left on
    return module


def test_a_seeded_draw_repeats_and_leaves_the_global_generator_alone(images):
    module = dropout_net()
    before = torch.get_rng_state()
    one, two, other = (run_seeded(module, images, seed) for seed in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_member_of_any_random_module_repeats(images):
    module = dropout_net()
    member = member_of(module, 0, 3)
    assert torch.equal(member(images), member(images))
    assert not torch.equal(member(images), member_of(module, 0, 4)(images))
    assert not torch.equal(member(images), member_of(module, 1, 3)(images))


def test_seeded_passes_are_the_draws_of_their_seeds(images):
    module, seeds = dropout_net(), [5, 6, 7, 8]
    source = SeededPasses(module, seeds)
    found = torch.cat(list(source.blocks(images, 1, 2)))
    truth = torch.stack([run_seeded(module, images, seed) for seed in (6, 7)])
    assert torch.equal(found, truth)
    torch.manual_seed(0)
    fresh = SeededPasses(module)
    one, two = (torch.cat(list(fresh.blocks(images, 0, 2))) for _ in range(2))
    assert not torch.equal(one, two)


def test_passes_give_the_gradient_of_all_of_them_though_memory_holds_one(noisy, images):
    members = [noisy.member(0, s) for s in range(3)]
    points = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(sum(run_passes(members, points)).square().sum(), points)
    (truth,) = torch.autograd.grad(sum(m(points) for m in members).square().sum(), points)
    assert torch.allclose(gradient, truth, atol=1e-4 * float(truth.abs().max()))
