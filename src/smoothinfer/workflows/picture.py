"""``smoothinfer picture``: what passes cost, what attacks do to votes, gradients, noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn

from smoothinfer.attacks import Attack, pgd
from smoothinfer.data import ImageData
from smoothinfer.errors import InputError, choose
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.modes import device_of, evaluating
from smoothinfer.noise import NoisyModel
from smoothinfer.numerics.balls import L2, Ball
from smoothinfer.runtime.processes import Processes
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.numerics.statistics import proportion
from smoothinfer.runtime.provenance import computer, made_by
from smoothinfer.reporting.looks import COSTS, cost_picture, grid_picture, votes_picture
from smoothinfer.reporting.figures import strengths_picture
from smoothinfer.smoothing import SmoothedClassifier
from smoothinfer.types import Images

_SHOWN = 6
_CRAFTED = 128  # images together
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_REPEATS = 3

Attacks = Mapping[str, Attack]
Draw = Callable[[nn.Module, ImageData, Attacks, Ball, Path, int], Any]


def picture(
    kind: str,
    model: nn.Module,
    data: ImageData,
    attacks: Attacks,
    ball: Ball,
    out: str | Path,
    seed: int = 0,
) -> Any:
    """Draw one of ``PICTURES`` of ``model`` into ``out``; return the numbers in it.

    Args:
        kind: ``"cost"``, ``"votes"``, ``"gradients"`` or ``"noise"``.
        model: random, in eval mode.
        data: images and labels.
        attacks, ball: what is done to the images, by name; ``"votes"`` takes one attack.
        out: receives ``KIND.png`` and ``KIND.json``.
        seed: names the streams.

    Raises:
        InputError: there is no such picture, no noise to draw, or one attack too many.
    """
    draw = choose("picture", PICTURES, kind)
    if len(data) == 0:
        raise InputError("there are no images to draw")
    found = draw(model, data, attacks, ball, Path(out), seed)
    write_json(Path(out) / f"{kind}.json", {**found, "computers": [computer()], **made_by()})
    return found


def cost(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """Accuracy against passes used and milliseconds, for votes of fixed, exact and ppr length.

    Ringed are the points on the Pareto front under each attack, which no other beats.
    """
    device = device_of(model, data.pixels)
    labels, seen = data.labels.to(device), {"clean": data.images.to(device)}
    seen |= {name: _attacked(model, data, each, ball, seed) for name, each in attacks.items()}
    curves: dict[str, list[dict[str, float]]] = {"fixed": [], "exact": [], "ppr": []}
    work = [(stop, n) for stop in curves for n in _COUNTS if stop == "fixed" or n >= 16]
    with Progress(disable=not Processes().main, transient=True) as bar:
        for stop, samples in bar.track(work, description="voting"):
            point: dict[str, float] = {"samples": samples}
            smooth = SmoothedClassifier(model, samples, seed=derive_seed(seed, "cost"))
            for name, images in seen.items():
                answer, milliseconds = _timed(smooth, images, stop)
                right = proportion(int((answer.labels == labels).sum()), len(labels))
                point[name] = 100 * right.value
                point[f"{name} low"], point[f"{name} high"] = 100 * right.low, 100 * right.high
                point[f"{name} passes"] = float(answer.samples.double().mean())
                point[f"{name} milliseconds"] = milliseconds / len(labels)
            curves[stop].append(point)
    points = [point for each in curves.values() for point in each]
    for name in attacks:
        for axis in COSTS:
            _mark_front(points, name, axis)
    cost_picture(curves, list(seen), out / "cost.png")
    return {"images": len(data), "curves": curves}


def votes(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """How 512 passes vote on the first images, before and after the attack."""
    if len(attacks) != 1:
        raise InputError(f"this picture shows one attack, not {', '.join(attacks) or 'none'}")
    shown, (attack,) = data[:_SHOWN], attacks.values()
    moved = _attacked(model, shown, attack, ball, seed)
    smooth = SmoothedClassifier(model, 512, seed=derive_seed(seed, "votes"))
    images = shown.images.to(moved.device)
    counts = smooth.predict(images).counts.cpu(), smooth.predict(moved).counts.cpu()
    votes_picture(images, moved, counts, shown.labels, shown.classes, out / "votes.png")
    names = ("clean", "attacked")
    return {name: count.tolist() for name, count in zip(names, counts, strict=True)}


def gradients(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """What a large targeted attack paints, without noise and averaged over draws of it.

    Where gradients follow what people see, as a robust model's do, the target's features appear.
    The attack is targeted PGD in L2 with 60 steps; of the one given only the ball counts.
    """
    del attacks
    if not isinstance(model, NoisyModel):
        raise InputError("this picture compares a NoisyModel with its noise on and off")
    shown = data[:_SHOWN]
    device = device_of(model, data.pixels)
    images, labels = shown.images.to(device), shown.labels.to(device)
    targets = (labels + 1) % len(shown.classes)
    large = L2(ball.radius if isinstance(ball, L2) else ball.radius * images[0].numel() ** 0.5)
    how: dict[str, Any] = {"steps": 60, "step_size": large.radius / 12, "targets": targets}
    with evaluating(model.module):
        bare = pgd(model.module, images, labels, large, **how, generator=stream(seed, "bare"))
    noisy = pgd(model, images, labels, large, draws=16, **how, generator=stream(seed, "noisy"))
    columns = {"image": images, "noise off": bare, "mean of 16 draws": noisy}
    to = [shown.classes[int(target)] for target in targets]
    grid_picture(columns, [f"to {name}" for name in to], out / "gradients.png")
    return {"radius": large.radius, "targets": to}


def noise(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """How strong the learned noise of each layer is, in multiples of what it disturbs.

    Noise at the inputs and at activations is as strong as on the images; no attack is run.
    """
    del attacks, ball, seed
    strengths: dict[str, float] = {}
    if isinstance(model, NoisyModel):
        images = data[:_CRAFTED].images.to(device_of(model, data.pixels))
        strengths = model.strengths(images)
    if not strengths:
        raise InputError("the model has no learned noise to draw")
    strengths_picture(strengths, out / "noise.png")
    return {"strengths": strengths}


PICTURES: dict[str, Draw] = {
    "cost": cost,
    "votes": votes,
    "gradients": gradients,
    "noise": noise,
}


def _attacked(model: nn.Module, data: ImageData, attack: Attack, ball: Ball, seed: int) -> Images:
    device = device_of(model, data.pixels)
    images, labels = data.images.to(device), data.labels.to(device)
    parts = []
    with Progress(disable=not Processes().main, transient=True) as bar:
        for at in bar.track(range(0, len(images), _CRAFTED), description="crafting"):
            batch, generator = slice(at, at + _CRAFTED), stream(seed, "picture", at)
            parts.append(attack(model, images[batch], labels[batch], ball, generator=generator))
    return torch.cat(parts)


def _timed(smooth: SmoothedClassifier, images: Images, stop: str) -> tuple[Any, float]:
    """Return the answer and the median milliseconds of a few repeats."""
    spent = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        answer = smooth.predict(images, stop=stop)
        spent.append(1000 * (time.perf_counter() - begun))
    return answer, sorted(spent)[_REPEATS // 2]


def _mark_front(points: list[dict[str, float]], name: str, axis: str) -> None:
    """Mark the points that no other beats: as accurate for less, or more accurate for no more."""
    for point in points:
        place = point[name], -point[f"{name} {axis}"]
        others = [(other[name], -other[f"{name} {axis}"]) for other in points]
        beaten = (o[0] >= place[0] and o[1] >= place[1] and o != place for o in others)
        point[f"front {name} {axis}"] = float(not any(beaten))
