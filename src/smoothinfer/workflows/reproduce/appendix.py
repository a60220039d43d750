"""Appendix A as an experiment: noise, attacks and a linear support vector machine on real digits.

A linear machine's worst case within a ball is known, so the effect of noise on the loss of its
training and on the direction of an attack can be computed exactly.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from sklearn.svm import LinearSVC
from torch import Tensor

from smoothinfer.data import ImageData, load_data
from smoothinfer.numerics.randomness import stream
from smoothinfer.reporting.figures import draw_lines
from smoothinfer.reporting.tables import Table
from smoothinfer.runtime.files import write_json, write_text

RADIUS = 0.05
SIGMAS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0)


@dataclass(frozen=True)
class Line:
    """The figures at one sigma; losses and cosines are means over images.

    Attributes:
        sigma: of the Gaussian noise, on the pixels for the losses; on the weights, in units of
            their mean size, for the directions.
        noisy: E max over |delta| <= radius of [1 - y (w'(x + noise + delta) + b)]+, A.26.
        without: [1 - y (w'x + b) + radius |w|_1]+, the same without noise, A.28.
        gap: noisy - without.
        error: standard error of the gap, over images.
        linear: share of draws where the attacked hinge is above zero: there it is linear.
        one, mean: cosine of the attacker's gradient with the true direction -y w, from one draw
            and from the mean over all.
    """

    sigma: float
    noisy: float
    without: float
    gap: float
    error: float
    linear: float
    one: float
    mean: float


def run_appendix(out: str | Path, seed: int = 0, draws: int = 64) -> list[Line]:
    """Train the machine, measure every sigma, and write a table and a picture to ``out``.

    Two things are shown. The expectation claim: the attacked loss under noise equals that without
    where the hinge is linear in all draws, and lies above it elsewhere (Jensen). And the
    direction: noise on the weights turns the attacker's gradient away from the true direction, and
    the perpendicular part wastes the attacker's budget. Averaging over draws turns it back, so a
    defence must be evaluated under an attack that averages.

    Args:
        out: folder of ``appendix-a.md``, ``.json`` and ``.png``.
        seed: names the streams.
        draws: of the noise, for each image.

    Source: Nemcovsky et al. 2019, appendix A; Xu, Caramanis, Mannor 2009 for A.27.
    """
    weight, bias = _machine(seed)
    images, signs = _halves(load_data("digits", "test"))
    lines = [_measure(weight, bias, images, signs, sigma, seed, draws) for sigma in SIGMAS]
    out = Path(out)
    write_json(out / "appendix-a.json", {"radius": RADIUS, "lines": [asdict(x) for x in lines]})
    write_text(out / "appendix-a.md", _markdown(lines, draws))
    curves = {
        "cosine, one draw": [x.one for x in lines],
        f"cosine, mean of {draws}": [x.mean for x in lines],
        "share of draws where the hinge is linear": [x.linear for x in lines],
    }
    title = f"a linear machine on digits, L-infinity radius {RADIUS:g}"
    draw_lines(list(SIGMAS), curves, "sigma of the noise", title, out / "appendix-a.png")
    return lines


def _machine(seed: int) -> tuple[Tensor, float]:
    images, signs = _halves(load_data("digits", "train"))
    machine = LinearSVC(C=0.1, loss="hinge", random_state=seed, max_iter=20_000)
    machine.fit(images.numpy(), signs.numpy())
    return torch.from_numpy(machine.coef_[0]).float(), float(machine.intercept_[0])


def _halves(data: ImageData) -> tuple[Tensor, Tensor]:
    """Return flat images and signs: digits below five against the others."""
    return data.images.flatten(1), (data.labels < 5).float() * 2 - 1


def _measure(
    weight: Tensor, bias: float, images: Tensor, signs: Tensor, sigma: float, seed: int, draws: int
) -> Line:
    generator = stream(seed, "appendix", f"{sigma:g}")
    reach = RADIUS * float(weight.abs().sum())  # the most that the ball takes from a margin
    margin = signs * (images @ weight + bias)
    spread = sigma * float(weight.norm())  # of the margin: w'noise is a Gaussian
    noise = spread * torch.randn(draws, len(images), generator=generator)
    losses = (1 - (margin + noise) + reach).relu()
    without = (1 - margin + reach).relu()
    gap = losses.mean(0) - without
    one, mean = _directions(weight, bias, images, signs, sigma, draws, generator)
    return Line(
        sigma=sigma,
        noisy=float(losses.mean()),
        without=float(without.mean()),
        gap=float(gap.mean()),
        error=float(gap.std() / len(images) ** 0.5),
        linear=float((losses > 0).float().mean()),
        one=one,
        mean=mean,
    )


def _directions(
    weight: Tensor,
    bias: float,
    images: Tensor,
    signs: Tensor,
    sigma: float,
    draws: int,
    generator: torch.Generator,
) -> tuple[float, float]:
    """Return the mean cosines with the true direction: of one draw's gradient, of their mean.

    Images on which the hinge is flat have no gradient, and are left out.
    """
    size, total, singles = float(weight.abs().mean()), torch.zeros_like(images), []
    for _ in range(draws):
        noisy = weight + sigma * size * torch.randn(images.shape, generator=generator)
        active = 1 - signs * ((images * noisy).sum(1) + bias) > 0
        gradient = -signs[:, None] * noisy * active[:, None]
        total += gradient
        turned = torch.cosine_similarity(gradient, -signs[:, None] * weight, dim=1)
        singles.append(turned[active])
    alive = total.abs().sum(1) > 0
    back = torch.cosine_similarity(total, -signs[:, None] * weight, dim=1)[alive]
    return float(torch.cat(singles).mean()), float(back.mean())


def _markdown(lines: list[Line], draws: int) -> str:
    heads = ["sigma", "attacked loss (A.26)", "without noise (A.28)", "gap", "hinge linear"]
    heads += ["cosine, one draw", f"mean of {draws}"]
    cells = [
        [
            f"{x.sigma:g}",
            f"{x.noisy:.4f}",
            f"{x.without:.4f}",
            f"{x.gap:.4f} ± {x.error:.4f}",
            f"{x.linear:.3f}",
            f"{x.one:.3f}",
            f"{x.mean:.3f}",
        ]
        for x in lines
    ]
    return (
        "# Appendix A: a linear support vector machine under noise\n\n"
        f"Digits 0-4 against 5-9, 360 test images, L-infinity radius {RADIUS:g}, {draws} draws.\n\n"
        f"{Table(heads, cells).markdown()}"
    )
