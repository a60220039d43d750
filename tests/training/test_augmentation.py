"""Random shifts and mirroring: every one equally often, and each image by itself."""

import torch

from smoothinfer.training.augmentation import draw_shifts, move


def crop_and_flip(pixels, padding, flip, generator=None):
    return move(pixels, draw_shifts(len(pixels), padding, generator), padding, flip)


def test_crops_shift_and_flips_mirror():
    pixels = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5).expand(400, 2, 5, 5)
    out = crop_and_flip(pixels, 1, True, torch.Generator().manual_seed(0))
    assert out.shape == pixels.shape
    padded = torch.nn.functional.pad(pixels[:1], [1] * 4)[0]
    options = [
        window.flip(2) if mirrored else window
        for i in range(3)
        for j in range(3)
        for window in [padded[:, i : i + 5, j : j + 5]]
        for mirrored in (False, True)
    ]
    found = [next(k for k, o in enumerate(options) if torch.equal(o, image)) for image in out]
    counts = torch.bincount(torch.tensor(found), minlength=18)
    error = (400 / 18 * (1 - 1 / 18)) ** 0.5
    assert ((counts - 400 / 18).abs() < 4.5 * error).all()  # every one of 18, equally often
    assert torch.equal(crop_and_flip(pixels, 0, False), pixels)


def test_a_generator_repeats_the_shifts():
    pixels = torch.arange(8 * 25).view(8, 1, 5, 5)
    one, two, other = (
        crop_and_flip(pixels, 2, True, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
