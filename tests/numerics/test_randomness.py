"""Streams of random numbers with names."""

import torch

from smoothinfer.numerics.randomness import (
    derive_seed,
    draw_seed,
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
