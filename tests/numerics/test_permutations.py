"""The permutation test keeps its level whatever draws look like inside, and finds differences."""

import torch

from smoothinfer.numerics.permutations import permutation_test


def draws(count, seed, shared=True):
    """Draws whose numbers are all but one and the same, as under noise that images share."""
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(count, 1, 1, generator=generator)
    own = torch.randn(count, 6, 3, generator=generator)
    return common + 0.01 * own if shared else own


def test_equal_distributions_differ_no_more_often_than_the_level():
    chances = torch.tensor([permutation_test(*draws(16, seed).split(8)) for seed in range(100)])
    for level in (0.05, 0.2):
        share = (chances < level).double().mean(0)
        assert (share < level + 3 * (level / 100) ** 0.5).all()
    assert chances.min() > 1e-4


def test_other_means_and_other_spreads_are_found_each_by_its_test():
    one, two = draws(16, 0), draws(16, 1)
    mean, spread = permutation_test(one, two + 5)
    assert mean < 1e-3 < spread
    mean, spread = permutation_test(one, 20 * (two - two.mean(0)) + one.mean(0))
    assert spread < 1e-3 < mean


def test_draws_that_are_all_equal_do_not_differ():
    assert permutation_test(torch.ones(8, 3), torch.ones(8, 3)) == (1.0, 1.0)
