"""The sequential certificate: sound at every stopping time, frugal, no weaker than it must be."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import nn

import smoothinfer as si
from smoothinfer.noise import GridGaussian
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.smoothing.radii_test import KINDS, RadiiTest
from smoothinfer.smoothing.sequences import SEQUENCES, lower_share, upper_share
from tests.conftest import PIXEL_SIGMA, images_at

SIGMA = 0.5
RADII = [0.0, 0.25, 0.5, 0.75]


def simulate(shares, kind, alpha, samples=1000, images=10_000, radii=RADII, seed=0):
    """Certificates of ``images`` alike images whose passes choose classes by ``shares``."""
    generator = np.random.default_rng(seed)
    zeros = torch.zeros(images, dtype=torch.int64)
    test = RadiiTest(zeros, radii, 0.0, SIGMA, samples, alpha, kind, len(shares))
    counts, rows = np.zeros((images, len(shares)), dtype=np.int64), np.arange(images)
    used, before = np.zeros(images), 0
    for passes in test.checkpoints():
        counts[rows] += generator.multinomial(passes - before, shares, size=len(rows))
        before, used[rows] = passes, passes
        tally = SimpleNamespace(passes=passes, counts=torch.from_numpy(counts))
        rows = rows[~test.decided(tally, torch.from_numpy(rows)).numpy()]
        if not len(rows):
            break
    places = test.certified.numpy()
    return np.where(places < 0, np.nan, np.array(radii)[places]), used, test


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "shares", [(norm.cdf(0.499 / SIGMA), 1 - norm.cdf(0.499 / SIGMA)), (0.4, 0.4, 0.2)]
)
def test_no_more_certificates_are_false_than_alpha_allows(kind, shares):
    """10,000 images just below a radius: 0.5 in one world, 0 in one where two classes tie."""
    alpha = 0.05
    found, _, _ = simulate(shares, kind, alpha)
    truth = SIGMA / 2 * (norm.ppf(shares[0]) - norm.ppf(shares[1]))
    false = (found > truth + 1e-12) if truth > 0 else ~np.isnan(found)
    assert false.mean() <= alpha + 3 * (alpha * (1 - alpha) / len(found)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_far_from_a_radius_few_passes_decide(kind):
    share = norm.cdf(0.62 / SIGMA)  # between 0.5 and 0.75
    found, used, test = simulate((share, 1 - share), kind, 1e-3, samples=100_000, images=500)
    assert (found == 0.5).mean() > 0.99
    assert used.mean() < 6_000
    assert test.closed.all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_class_is_bounded_too(kind):
    """With 45 % of the passes and rivals at 5.5 % a class has a radius, which pA alone denies."""
    shares = (0.45, *[0.055] * 10)
    found, _, _ = simulate(shares, kind, 1e-3, samples=20_000, images=200)
    truth = SIGMA / 2 * (norm.ppf(0.45) - norm.ppf(0.055))
    assert truth > 0.25
    assert (found == 0.25).mean() > 0.9


@pytest.mark.parametrize("kind", SEQUENCES)
def test_bounds_enclose_the_share_and_close_in_on_it(kind):
    widths = []
    for samples in (100, 1000, 10_000):
        hits = np.array([0.7 * samples])
        low, high = (f(kind, hits, samples, 9, 1e-3) for f in (lower_share, upper_share))
        assert low < 0.7 < high
        widths.append(float(high[0] - low[0]))
    assert widths[0] > 2.5 * widths[1] > 2.5 * widths[2]
    assert lower_share(kind, np.zeros(1), 100, 1, 1e-3) == pytest.approx(0.0, abs=1e-9)
    assert upper_share(kind, np.array([100.0]), 100, 1, 1e-3) == pytest.approx(1.0, abs=1e-9)


def test_radii_of_a_half_space_are_decided_together(noisy_pixel):
    distances = [0.02, 0.12, 0.28, 0.5]
    radii = [0.0, 0.05, 0.2, 0.4]
    found = si.certify(noisy_pixel, images_at(distances), radii=radii, samples=50_000, seed=0)
    assert found.labels.tolist()[1:] == [1, 1, 1]
    assert found.radii.tolist()[1:] == pytest.approx([0.05, 0.2, 0.4])
    assert found.samples[1:].max() < 25_000
    one_by_one = [
        si.certify(noisy_pixel, images_at(distances), radii=radius, samples=50_000, seed=0)
        for radius in radii[1:]
    ]
    for radius, single in zip(radii[1:], one_by_one, strict=True):
        assert torch.equal(single.radii > 0, found.radii >= radius)


def test_images_of_a_wrong_class_take_no_passes(noisy_pixel):
    truth = torch.tensor([1, 0])
    found = si.certify(noisy_pixel, images_at([0.3, 0.3]), truth=truth, radii=0.1, seed=0)
    assert found.samples.tolist()[1] == 100
    assert found.radii.tolist() == [0.1, 0.0]
    assert found.labels.tolist() == [1, 1]
    none = si.certify(noisy_pixel, images_at([0.3]), truth=torch.tensor([0]), radii=0.1, seed=0)
    assert none.samples.tolist() == [100]


def test_an_image_left_undecided_says_so(noisy_pixel):
    found = si.certify(noisy_pixel, images_at([0.2]), radii=0.199, samples=200, seed=0)
    assert found.labels.tolist() == [si.ABSTAIN]
    assert not found.decided.any()


class LastBits(nn.Module):
    """Tells x = 1 from x = 0 by the last bits of x + noise, which floats round away near 1.

    The classifier of Voracek and Hein's counterexample kind: float noise tells it the clean image.
    """

    def forward(self, images):
        first = images.flatten(1)[:, 0].double()
        fine = (first * 2.0**24).remainder(1.0) != 0  # a number that no sum near 1 can be
        away = (first.abs() < 0.5) & fine
        return torch.stack([away.double(), (~away).double()], 1).float()


def test_float_noise_gives_a_false_certificate_and_grid_noise_none():
    """At 0 nearly every pass sees fine bits; at 0.5, within the radius, a pass sees none."""
    image, near = torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.75)
    sigma = 0.15
    floats = si.NoisyModel(LastBits(), inputs=si.Gaussian(sigma)).eval()
    certificate = si.certify(floats, image, method="fixed", samples=100_000, seed=0)
    votes = si.SmoothedClassifier(floats, 4000, seed=0).predict(near).counts[0]
    assert certificate.labels == 0
    assert votes[1] > votes[0]  # another answer there
    sound = si.NoisyModel(LastBits(), inputs=GridGaussian(sigma)).eval()
    held = si.certify(sound, image, method="fixed", samples=2000, seed=0)
    votes = si.SmoothedClassifier(sound, 4000, seed=0).predict(near).counts[0]
    assert held.labels == votes.argmax()


def test_grid_noise_is_gaussian_exact_and_differentiable():
    noise = GridGaussian(0.3)
    clean = torch.rand(40, 3, 20, 20, requires_grad=True)
    torch.manual_seed(0)
    noisy = noise(clean)
    noisy.sum().backward()
    assert torch.equal(clean.grad, torch.ones_like(clean))
    drawn = (noisy - clean).detach().double().flatten()
    count = len(drawn)
    assert abs(float(drawn.mean())) < 4.5 * 0.3 / count**0.5
    assert abs(float(drawn.std()) - 0.3) < 4.5 * 0.3 / (2 * count) ** 0.5
    assert torch.equal(noisy * 2**16, (noisy * 2**16).round())
    si.certify(si.NoisyModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), inputs=noise).eval(),
               torch.rand(1, 1, 2, 2), samples=50)  # fmt: skip


def test_grid_noise_gives_up_what_its_arithmetic_costs(noisy_pixel):
    image = images_at([0.4])
    plain = si.certify(noisy_pixel, image, method="fixed", samples=2000, seed=0)
    sound = noisy_pixel.with_inputs(GridGaussian(PIXEL_SIGMA))
    radius, share = GridGaussian(PIXEL_SIGMA).slack(image[0].numel())
    assert 0 < radius < 1e-3
    assert 0 < share < 1e-6
    held = si.certify(sound, image, method="fixed", samples=2000, seed=0)
    assert abs(float(held.radii - plain.radii)) < 0.1
    wide = si.certify(sound, images_at([0.45]), radii=0.1, samples=5000, seed=0)
    assert wide.radii.tolist() == [0.1]


def test_radii_that_are_asked_for_are_reached_exactly():
    """(0.25 + 2^-16 sqrt(3072)) - 2^-16 sqrt(3072) is not 0.25 in floats."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 2))
    nn.init.zeros_(net[1].weight)
    net[1].bias.data = torch.tensor([1.0, 0.0])
    sound = si.NoisyModel(net, inputs=GridGaussian(0.5)).eval()
    found = si.certify(sound, torch.rand(2, 3, 32, 32), radii=[0, 0.25], samples=500, seed=0)
    assert found.radii.tolist() == [0.25, 0.25]


def test_grid_noise_has_no_normalised_units_and_is_kept_by_another_sigma():
    with pytest.raises(TypeError):
        GridGaussian(0.2, units="normalised")
    noisy = si.NoisyModel(nn.Flatten(), inputs=GridGaussian(0.2)).eval()
    assert type(with_input_noise(noisy, 0.3).inputs) is GridGaussian
