"""Certificates: published anchors, closed-form worlds, and how often their statements hold."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn

import smoothinfer as si
from smoothinfer.smoothing.certification import lower_bound, sorted_radii
from smoothinfer.smoothing.sequences import log_evidence
from tests.conftest import PIXEL_SIGMA, FirstPixel, images_at, noisy_line


@pytest.mark.parametrize(
    ("hits", "samples", "bound", "quantile"),
    [
        (100_000, 100_000, 0.9999309, 3.8115),
        (990, 1000, 0.97604, 1.9780),
        (500, 512, 0.94799, 1.6256),
    ],
)
def test_the_bounds_are_cohens(hits, samples, bound, quantile):
    found = lower_bound(hits, samples, 0.001)
    assert found == pytest.approx(bound, abs=5e-6)
    assert norm.ppf(found) == pytest.approx(quantile, abs=5e-5)


def test_the_p_values_are_cohens():
    assert binomtest(60, 100).pvalue == pytest.approx(0.0569, abs=5e-5)
    assert binomtest(510, 1000).pvalue == pytest.approx(0.548, abs=5e-4)
    assert binomtest(8, 8).pvalue == pytest.approx(0.0078, abs=5e-5)


def test_a_half_space_is_certified_up_to_its_plane(noisy_pixel):
    distances = [0.02, 0.1, 0.2, 0.4]
    found = si.certify(noisy_pixel, images_at(distances), method="fixed", samples=20_000, seed=0)
    assert found.labels[1:].tolist() == [1, 1, 1]
    for radius, distance in zip(found.radii[1:], distances[1:], strict=True):
        assert 0.9 * distance < radius <= distance
    assert found.samples.tolist() == [20_100] * 4


def test_no_radius_exceeds_the_true_distance_beyond_alpha():
    """10,000 images at one distance, alpha = 1 %: the share of wrong radii, in standard errors."""
    alpha, samples, distance = 0.01, 500, 0.15
    generator = torch.Generator().manual_seed(0)
    share = torch.full((10_000,), float(norm.cdf(distance / PIXEL_SIGMA)), dtype=torch.float64)
    hits = torch.binomial(torch.full_like(share, samples), share, generator=generator)
    radii = [PIXEL_SIGMA * norm.ppf(lower_bound(int(hit), samples, alpha)) for hit in hits]
    wrong = sum(radius > distance for radius in radii) / len(radii)
    assert wrong <= alpha + 3 * (alpha * (1 - alpha) / 10_000) ** 0.5
    assert wrong > alpha / 3  # and the bound is not idle


@pytest.mark.slow
def test_no_certificate_of_a_half_space_exceeds_its_distance_beyond_alpha(noisy_pixel):
    """All of `certify`, 10,000 times with noise of its own; about a minute."""
    alpha, distance, wrong = 0.05, 0.1, 0
    for seed in range(10_000):
        found = si.certify(
            noisy_pixel,
            images_at([distance]),
            method="fixed",
            samples=100,
            selection=10,
            alpha=alpha,
            seed=seed,
        )
        wrong += int(found.labels == 1 and found.radii > distance)
    assert wrong / 10_000 <= alpha + 3 * (alpha * (1 - alpha) / 10_000) ** 0.5
    assert wrong > 100  # and the bound is not idle


@pytest.mark.parametrize("share", [0.6, 0.95])
def test_evidence_misleads_no_more_often_than_alpha(share):
    """Ville: where the share is p0 itself, evidence ever reaches 1/alpha with chance <= alpha."""
    alpha, trials, samples = 0.05, 4000, 400
    generator = torch.Generator().manual_seed(1)
    hits = (torch.rand(trials, samples, generator=generator) < share).cumsum(1)
    ever = torch.zeros(trials, dtype=torch.bool)
    for done in range(1, samples + 1):  # checked after every pass
        found = log_evidence(hits[:, done - 1].numpy(), done, share)
        ever |= torch.from_numpy(found >= np.log(1 / alpha))
    assert float(ever.float().mean()) <= alpha + 3 * (alpha * (1 - alpha) / trials) ** 0.5


def test_the_sequential_certificate_stops_early_and_is_right(noisy_pixel):
    distances = [0.1, 0.3, 0.5]
    found = si.certify(noisy_pixel, images_at(distances), radii=0.2, samples=20_000, seed=0)
    assert found.labels.tolist() == [si.ABSTAIN, 1, 1]
    assert found.radii.tolist() == pytest.approx([0, 0.2, 0.2])
    assert found.samples[2] < found.samples[1] < 5_000  # the farther, the sooner
    assert found.samples[0] < 5_000  # and the hopeless one is given up


def test_a_vote_too_short_for_a_radius_is_refused(noisy_pixel):
    with pytest.raises(si.InputError, match="no vote of 100 passes proves radius 1"):
        si.certify(noisy_pixel, images_at([0.3]), radii=1.0, samples=100)
    with pytest.raises(si.InputError, match="not even a unanimous one"):
        si.certify(noisy_pixel, images_at([0.3]), radii=[0.1, 0.45], samples=100)
    assert (
        si.certify(noisy_pixel, images_at([0.5]), radii=0.3, samples=100, selection=10).samples[0]
        <= 110
    )


def test_prediction_abstains_on_a_close_vote(noisy_pixel):
    found = si.predict_or_abstain(noisy_pixel, images_at([0.0, 0.01, 0.5]), samples=100, seed=0)
    assert found.tolist() == [si.ABSTAIN, si.ABSTAIN, 1]
    sure = noisy_pixel.with_inputs(si.Gaussian(0.05))
    few = si.predict_or_abstain(sure, images_at([0.5]), samples=10, seed=0)
    assert few.tolist() == [si.ABSTAIN]  # 10 of 10 is not enough at 0.001, 11 are
    assert si.predict_or_abstain(sure, images_at([0.5]), samples=11, seed=0).tolist() == [1]


class Backdoored(si.Gaussian):
    """It says Gaussian and is not."""


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "no theorem"),
        (si.Laplace(0.2), "no theorem"),
        (si.Uniform(0.2), "no theorem"),
        (si.Gaussian(0.0), "no theorem"),
        (Backdoored(0.2), "no theorem"),
    ],
)
def test_noise_without_a_theorem_is_refused(inputs, message):
    with pytest.raises(si.InputError, match=message):
        si.certify(si.NoisyModel(FirstPixel(), inputs=inputs).eval(), images_at([0.1]), samples=10)


def test_what_is_not_known_to_be_gaussian_is_refused(noisy_pixel, monkeypatch):
    with pytest.raises(si.InputError, match="only a NoisyModel"):
        si.certify(FirstPixel(), images_at([0.1]))
    module = nn.Sequential(si.Normalize([0.5], [0.2]), FirstPixel())
    units = si.NoisyModel(module, inputs=si.Gaussian(0.2, units="normalised")).eval()
    with pytest.raises(si.InputError, match="units='pixel'"):
        si.certify(units, images_at([0.1]))
    # Draws that are clipped: the numbers say so, whatever the class is called.
    draw = si.Gaussian.draw
    monkeypatch.setattr(si.Gaussian, "draw", lambda *given: draw(*given).clamp(-1, 1))
    with pytest.raises(si.InputError, match="not Gaussian"):
        si.certify(noisy_pixel, images_at([0.1]))


def test_weight_noise_beside_the_inputs_is_averaged_over():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    noisy = si.NoisyModel(net, inputs=si.Gaussian(0.1), weights=si.PNI()).eval()
    found = si.certify(noisy, torch.rand(3, 1, 2, 2), samples=200, seed=0)
    assert (found.radii >= 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {"samples": 0},
        {"samples": 100.0},
        {"samples": 10**30},
        {"selection": True},
        {"alpha": 0.0},
        {"alpha": float("nan")},
        {"radii": -1.0},
        {"radii": [0.1, float("inf")]},
        {"radii": []},
        {"method": "guess"},
        {"seed": 0.5},
    ],
    ids=str,
)
def test_bad_numbers_are_refused(noisy_pixel, options):
    with pytest.raises(si.InputError, match=next(iter(options)).replace("radii", "radi")):
        si.certify(noisy_pixel, images_at([0.1]), **options)


def test_numbers_of_numpy_and_torch_are_plain_numbers(noisy_pixel):
    plain = si.certify(noisy_pixel, images_at([0.3]), samples=200, selection=20, seed=3)
    given = {"samples": np.int64(200), "selection": torch.tensor(20), "seed": np.uint8(3)}
    assert si.certify(noisy_pixel, images_at([0.3]), **given).radii == plain.radii


def test_no_images_and_one_class_get_no_certificate(noisy_pixel):
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(1))
    net(images_at([0.3]))
    one = si.NoisyModel(net, inputs=si.Gaussian(0.2)).eval()
    for certified in (si.certify, si.predict_or_abstain):
        with pytest.raises(si.InputError, match="no images to certify"):
            certified(noisy_pixel, images_at([0.3])[:0], samples=20)
        with pytest.raises(si.InputError, match="at least 2 classes"):
            certified(one, images_at([0.3]), samples=20)


def test_bounds_keep_all_their_digits(noisy_pixel):
    assert si.certify(noisy_pixel, images_at([0.4]), samples=100).lower.dtype == torch.float64


def test_radii_and_truth_are_taken_in_any_form_and_checked():
    assert sorted_radii(np.array([0.5, 0.25])) == sorted_radii(torch.tensor([0.25, 0.5]))
    assert sorted_radii(0.5) == [0.5]
    with pytest.raises(si.InputError, match="radius must be a number"):
        sorted_radii("0.5")
    model, shown = noisy_line(), torch.rand(2, 1, 8, 8)
    for truth in ([0, 1], torch.tensor([0]), torch.tensor([0.0, 1.0])):
        with pytest.raises(si.InputError, match="labels must"):
            si.certify(model, shown, truth=truth, samples=10)
