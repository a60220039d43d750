"""Certified accuracies that ``smoothinfer certify`` measured, for the card of a published model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smoothinfer.errors import InputError
from smoothinfer.reporting.members import read_json_member
from smoothinfer.reporting.shapes import CERTIFIED, check_shape

Certified = dict[str, Any]
FILE = "certified.json"
# Of the command: paths of a machine stay behind.
_SETTINGS = ("method", "samples", "selection", "seed", "skip", "limit", "first", "data hash")
_FIGURES = (
    *("images", "abstained", "undecided", "average radius", "norm", "sigma", "alpha"),
    *("certified accuracy", "passes of an image"),
)


def certificates_of(folder: Path, hashes: Sequence[str], name: str) -> Certified:
    """Return the certificates in ``folder`` as a card has them.

    Args:
        folder: that ``certify`` wrote.
        hashes: of the weights that the card describes.
        name: of the published model.

    Raises:
        InputError: they are damaged, of other weights, or of images on which settings are chosen.
    """
    found = read_json_member(FILE, folder, CERTIFIED)
    settings = found.get("settings") or {}
    if settings.get("sha256") not in hashes:
        raise InputError(f"{folder} holds certificates of other weights than {name}")
    if (split := settings.get("split") or "test") != "test":
        raise InputError(f"{folder} was measured on the {split} images: certify the test images")
    kept = {key: settings.get(key) for key in _SETTINGS}
    kept |= {"model": name, "data": Path(str(settings.get("data"))).name}
    return {**{key: found.get(key) for key in _FIGURES}, "settings": kept}


def joined(known: Sequence[Any], added: Sequence[Certified], name: str) -> list[Certified]:
    """Return certificates of before and of now; of the same settings the later ones.

    Raises:
        InputError: those of before are damaged.
    """
    found = {}
    for each in [*check_shape(list(known), [CERTIFIED], "certificates of the card"), *added]:
        settings = (each.get("settings") or {}) | {"model": name}
        radii = [entry["radius"] for entry in each["certified accuracy"]]
        found[str((sorted(settings.items(), key=str), each.get("norm"), radii))] = each | {
            "settings": settings
        }
    return list(found.values())
