"""Checks 5 to 8 and 12 fire on planted defects, each for the right reason."""

import pytest
import torch
from torch import nn

import smoothinfer as si
from tests.evaluation.audit.conftest import Reversed, Wrapped, assert_fires


class Shattered(Wrapped):
    def forward(self, images):
        return self.model(images + 0.02 * torch.sin(900 * images))


class WinnersTakeAll(Wrapped):
    """Only the largest twentieth of each feature map's values passes on."""

    def forward(self, images):
        features = images
        for part in [*self.model.module[:1], *self.model.module[1]]:
            features = part(features)
            if isinstance(part, nn.ReLU):
                flat = features.flatten(1)
                least = flat.kthvalue(int(0.95 * flat.shape[1]), dim=1).values
                features = features * (flat >= least[:, None]).view_as(features)
        return features


# Each with the checks that must fire, by what they say is wrong.
DEFECTS = {
    "shattered": (Shattered, {7, 8}),
    "reversed": (Reversed, {6, 7, 8}),
    "winners take all": (WinnersTakeAll, {8}),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_planted_defects_are_found(name, plain, digits):
    defect, checks = DEFECTS[name]
    # Queries must break ten survivors more before they count: of 120 images few survive.
    images = si.load_data("digits", "test") if checks == {8} else digits
    assert_fires(defect(plain), images, checks)
