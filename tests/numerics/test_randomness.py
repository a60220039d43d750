"""Streams of random numbers with names."""

import torch

from smoothinfer.numerics.randomness import (
    derive_seed,
    draw_seed,
    hit_by_draws,
    isolated_rng,
    normal,
    part_of_batch,
    stream,
    uniform,
)


def test_streams_are_named_not_counted():
    a, b = stream(0, "attack", 1), stream(0, "attack", 1)
    assert torch.equal(torch.rand(5, generator=a), torch.rand(5, generator=b))
    seeds = {
        derive_seed(s, *names) for s in (0, 1) for names in (("a",), ("b",), ("a", 0), ("a", "0"))
    }
    assert len(seeds) == 8


def test_isolated_rng_leaves_the_outside_untouched():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated_rng(1):
        torch.rand(100)
    assert torch.equal(torch.rand(3), expected)


def test_no_generator_gives_no_seed():
    assert draw_seed(None) is None


def test_parts_of_a_batch_use_the_numbers_of_the_whole():
    like = torch.zeros(1)
    for draw in (normal, uniform):
        with isolated_rng(0):
            whole, weights = draw((6, 2), like), draw((3,), like, images=False)
        for index in range(3):
            with isolated_rng(0), part_of_batch(index, 3):
                assert torch.equal(draw((2, 2), like), whole[index::3])
                assert torch.equal(draw((3,), like, images=False), weights)


def test_classes_are_hit_as_often_alone_and_in_pairs_as_by_draws_one_by_one():
    chance, draws, rows = torch.tensor([0.94, 0.03, 0.02, 0.01]), 60, 40_000
    with isolated_rng(0):
        hit = hit_by_draws(chance.expand(rows, 4), draws).double()
    for first in range(4):
        for second in range(first, 4):
            alone = [(1 - chance[each].item()) ** draws for each in {first, second}]
            neither = (1 - chance[list({first, second})].sum().item()) ** draws
            truth = 1 - sum(alone) + neither if len(alone) == 2 else 1 - alone[0]
            found = float((hit[:, first] * hit[:, second]).mean())
            error = (max(truth * (1 - truth), 1e-9) / rows) ** 0.5
            assert abs(found - truth) < 4.5 * error + 1e-9
