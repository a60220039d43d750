"""The words of a sheet: each that the page shows is explained, and no other."""

import re
from collections.abc import Sequence

from markupsafe import Markup

# A pattern, and what stands in the list if the page shows it.
_WORDS = {
    r"\bclean\b": ("Clean", "unchanged test images."),
    r"\battack": (
        "Attacked",
        "images that an attacker changed, within the radius, to make the model err.",
    ),
    r"worst case|in the worst of": (
        "Worst case",
        "an image counts only if the model is right on it unchanged and under every attack that "
        "was tried. A stronger attack may leave less.",
    ),
    r"\bvotes?\b": (
        "Vote",
        "a model with noise is run many times, each run a pass, and its answers are counted.",
    ),
    r"\baudit\b": (
        "Audit",
        "checks that look for robustness that is none; where one fired, the accuracy under attack "
        "is not to be relied on.",
    ),
    r"certified accuracy": (
        "Certified accuracy",
        "the share of images on which the answer is right and no change within the radius alters "
        "it: a proof, whatever the attack.",
    ),
    r"\babstain": (
        "Abstained",
        "the passes of an image did not agree enough for a proof; it counts as wrong.",
    ),
    r"\bsigma\b": (
        "Sigma",
        "the standard deviation of the Gaussian noise on each pixel value, which lies in [0, 1].",
    ),
    r"mean radius": ("Mean radius", "over the images, zero where the answer is wrong."),
    r"\bseeds\b": ("Seeds", "names of the random draws; figures are means over them."),
    r"L-infinity radius": (
        "L-infinity radius",
        "the largest change of any one pixel value, which lies in [0, 1]; 1/255 is one grey level "
        "of 255",
    ),
    r"L2 radius": (
        "L2 radius",
        "the length of a change: the square root of the sum of the squared changes of all pixel "
        "values, which lie in [0, 1].",
    ),
    r"L1 radius": (
        "L1 radius",
        "the sum of the changes of all pixel values, which lie in [0, 1].",
    ),
    r"\d \(\d+\.\d-\d+\.\d\)": (
        "Numbers in brackets",
        "95 % intervals over images: the true figure lies in there 19 times of 20. Two models "
        "whose intervals overlap much may be equally good.",
    ),
}
_ITEM = Markup("<li><strong>{}</strong>: {}</li>")
_LEVELS = re.compile(r"L-infinity radius (?:(\d+(?:\.\d+)?)/255|(\d+(?:\.\d+)?))")


def explained(parts: Sequence[Markup]) -> Markup:
    """Return a list of the words in ``parts`` that a reader may not know.

    Args:
        parts: what else the page shows.

    >>> print(explained([Markup("<p>L2 radius</p>")]).partition(":")[0])
    <ul>
    <li><strong>L2 radius</strong>
    """
    text = " ".join(part.striptags() for part in parts)
    items = [
        _ITEM.format(word, meaning + _grey_levels(text) if word == "L-infinity radius" else meaning)
        for pattern, (word, meaning) in _WORDS.items()
        if re.search(pattern, text, re.IGNORECASE)
    ]
    return Markup("<ul>\n{}\n</ul>").format(Markup("\n").join(items))


def _grey_levels(text: str) -> str:
    """Return the radii of ``text`` in grey levels of 255."""
    radii = dict.fromkeys(
        (f"{levels}/255", float(levels)) if levels else (plain, 255 * float(plain))
        for levels, plain in _LEVELS.findall(text)
    )
    return "".join(f", {shown} are {levels:.3g} of them" for shown, levels in radii) + "."
