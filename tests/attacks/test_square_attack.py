"""Square, the random search."""

import pytest

import smoothinfer as si
from tests.attacks.conftest import check_crosses_the_plane


def test_square_crosses_the_plane(half_space, middle, sides):
    """Where the best step would carry an image well past the plane."""
    check_crosses_the_plane("square", {"queries": 300}, half_space, middle, sides)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"ball": si.L2(1.0)}, "within Linf only"), ({"share": 2.0}, "share")],
)
def test_bad_options_are_refused(options, message, net, images, labels):
    with pytest.raises(si.InputError, match=message):
        si.square(net, images, labels, **{"ball": si.Linf(0.1), **options})
