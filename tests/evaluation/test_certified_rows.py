"""Certificates as rows: their shares, their units of work."""

import pyarrow as pa
import pytest
import torch

import smoothinfer as si
from smoothinfer.evaluation.certified_rows import (
    average_radius,
    certified_accuracy,
    certify_rows,
)
from smoothinfer.evaluation.store import Store
from tests.conftest import images_at


def line_data(distances):
    pixels = (images_at(distances) * 255).round().to(torch.uint8)
    labels = torch.ones(len(distances), dtype=torch.int64)
    return si.ImageData("line", pixels, labels, ("left", "right"))


def test_certified_accuracy_of_a_half_space_is_the_closed_form(noisy_pixel, tmp_path):
    """Images evenly spread up to 0.5 from the plane: 1 - r / 0.5 of them lie beyond r."""
    data, radii = line_data(torch.linspace(0.0025, 0.4975, 100).tolist()), (0.1, 0.2, 0.3)
    rows = certify_rows(noisy_pixel, data, out=tmp_path, samples=4000, seed=0, method="fixed")
    for radius, share in zip(radii, certified_accuracy(rows, radii), strict=True):
        assert share.value == pytest.approx(1 - radius / 0.5, abs=0.05)
        assert share.value <= 1 - radius / 0.5 + 0.01
    assert 0.2 < average_radius(rows) < 0.25  # the mean distance is 0.25
    again = certify_rows(noisy_pixel, data, out=tmp_path, samples=4000, seed=0, method="fixed")
    assert again.equals(rows)


def test_stored_certificates_are_not_made_again(noisy_pixel, tmp_path, monkeypatch):
    data = line_data([0.1, 0.4])
    rows = certify_rows(noisy_pixel, data, out=tmp_path, samples=100)
    monkeypatch.setattr(
        "smoothinfer.evaluation.certified_rows.Store.write", lambda *_: pytest.fail("made again")
    )
    assert certify_rows(noisy_pixel, data, out=tmp_path, samples=100).equals(rows)


def test_another_skip_is_other_work_and_a_radius_is_reached(noisy_pixel, tmp_path):
    data = line_data([0.4] * 8)
    for skip, images in ((1, list(range(8))), (2, [0, 2, 4, 6])):
        rows = certify_rows(
            noisy_pixel, data, out=tmp_path, skip=skip, samples=400, radii=[8 / 255]
        )
        assert rows["image"].to_pylist() == images
        assert certified_accuracy(rows, [8 / 255])[0].value == 1.0


def test_a_skip_of_zero_is_refused(noisy_pixel):
    with pytest.raises(si.InputError, match="skip must be at least 1"):
        certify_rows(noisy_pixel, line_data([0.1]), skip=0)


@pytest.mark.parametrize("change", ["drop", "text", "rows", "twice"])
def test_certificates_that_others_wrote_are_refused(change, noisy_pixel, tmp_path):
    data = line_data([0.1, 0.4])
    rows = certify_rows(noisy_pixel, data, out=tmp_path, samples=100)
    (path,) = tmp_path.glob("*.parquet")
    forged = {
        "drop": rows.drop_columns(["correct"]),
        "text": rows.set_column(0, "image", pa.array(["a", "b"])),
        "rows": rows.slice(1),
        "twice": rows.append_column("predicted", rows["predicted"]),
    }[change]
    path.unlink()
    Store(tmp_path).write(path.name.rsplit(".", 2)[0], forged)
    with pytest.raises(si.InputError, match="delete them"):
        certify_rows(noisy_pixel, data, out=tmp_path, samples=100)
