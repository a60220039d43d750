"""``smoothinfer picture``: the cost of passes, the votes under an attack, gradients, noise."""

import math
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smoothinfer.attacks import Attack, pgd
from smoothinfer.cli.options import (
    add_ball,
    add_limit,
    add_model,
    add_seed,
    add_sigma,
    add_split,
    attack_of,
    ball_of,
    images_of_split,
    load_model,
)
from smoothinfer.data import ImageData, class_names_of, match_classes
from smoothinfer.engine.prediction import Prediction
from smoothinfer.errors import InputError, choose
from smoothinfer.evaluation.costs import Cost
from smoothinfer.evaluation.example_cache import ExampleCache
from smoothinfer.evaluation.fingerprint import Fingerprint
from smoothinfer.evaluation.kept_results import KeptResults
from smoothinfer.noise import NoisyModel
from smoothinfer.numerics.balls import L2, Ball
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.numerics.statistics import proportion
from smoothinfer.reporting.figures import COSTS, cost_curves
from smoothinfer.reporting.image_figures import image_grid, vote_bars
from smoothinfer.reporting.strength_figures import strength_bars
from smoothinfer.runtime.files import write_json
from smoothinfer.runtime.modes import device_of, eval_mode
from smoothinfer.runtime.processes import Processes
from smoothinfer.runtime.progress import track
from smoothinfer.runtime.provenance import computer, made_by
from smoothinfer.runtime.terminal import Terminal
from smoothinfer.smoothing.classifier import SmoothedClassifier
from smoothinfer.types import Images, Labels

_SHOWN = 6
_BATCH = 128  # images attacked together
_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_REPEATS = 3

Attacks = Mapping[str, Attack]
Draw = Callable[[nn.Module, ImageData, Attacks, Ball, Path, int], Any]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("kind", choices=list(PICTURES), help="of picture")
    add_model(parser)
    parser.add_argument(
        "--attack",
        nargs="+",
        default=["pgd"],
        help="as for evaluate; several for cost",
    )
    add_ball(parser)
    add_sigma(parser)
    add_split(parser)
    add_limit(parser, 200, "by default 200")
    add_seed(parser)
    parser.add_argument("--out", required=True, help="folder of KIND.png and KIND.json")


def run(options: Namespace) -> int:
    attacks = {attack: attack_of(attack) for attack in options.attack}
    data, model = images_of_split(options), load_model(options)
    data = match_classes(data, class_names_of(model))
    draw_picture(options.kind, model, data, attacks, ball_of(options), options.out, options.seed)
    Terminal().print(str(Path(options.out) / f"{options.kind}.png"))
    return 0


def draw_picture(
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
        attacks, ball: on the images, by name; ``"votes"`` takes one attack.
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

    Ringed are the points on the Pareto front under each attack, which no other beats. Examples and
    points are kept in ``out`` as they come, for the next run of the same.
    """
    device = device_of(model, data.pixels)
    labels, shown = data.labels.to(device), {"clean": data.images.to(device)}
    cache = ExampleCache(out / "crafted")
    for name, attack in attacks.items():
        shown[name] = _attacked(model, data, attack, ball, seed, cache)
    world = model, data.hash, dict(attacks), ball, seed, computer(), _point
    kept = KeptResults(out / "points", *world)
    curves: dict[str, list[dict[str, float]]] = {"fixed": [], "exact": [], "ppr": []}
    work = [(stop, n) for stop in curves for n in _COUNTS if stop == "fixed" or n >= 16]
    for stop, samples in track(work, "voting", shown=Processes().main):
        point = kept.load(f"{stop}-{samples}")
        if point is None:
            smooth = SmoothedClassifier(model, samples, seed=derive_seed(seed, "cost"))
            point = {"samples": samples, **_point(smooth, shown, labels, stop)}
            kept.save(f"{stop}-{samples}", point)
        curves[stop].append(point)
    points = [point for each in curves.values() for point in each]
    for name in attacks:
        for axis in COSTS:
            _mark_front(points, name, axis)
    cost_curves(curves, list(shown), out / "cost.png")
    return {"images": len(data), "curves": curves}


def _point(
    smooth: SmoothedClassifier, shown: Mapping[str, Images], labels: Labels, stop: str
) -> dict[str, float]:
    point = {}
    for name, images in shown.items():
        answer, milliseconds = _timed(smooth, images, stop)
        right = proportion(int((answer.labels == labels).sum()), len(labels))
        point[name] = 100 * right.value
        point[f"{name} low"], point[f"{name} high"] = 100 * right.low, 100 * right.high
        point[f"{name} passes"] = float(answer.samples.double().mean())
        point[f"{name} milliseconds"] = milliseconds / len(labels)
    return point


def votes(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """The votes of 512 passes on the first images, before and after the attack."""
    if len(attacks) != 1:
        raise InputError(f"this picture shows one attack, not {', '.join(attacks) or 'none'}")
    shown, (attack,) = data[:_SHOWN], attacks.values()
    adversarial = _attacked(model, shown, attack, ball, seed)
    smooth = SmoothedClassifier(model, 512, seed=derive_seed(seed, "votes"))
    images = shown.images.to(adversarial.device)
    counts = smooth.predict(images).counts.cpu(), smooth.predict(adversarial).counts.cpu()
    vote_bars(images, adversarial, counts, shown.labels, shown.classes, out / "votes.png")
    names = ("clean", "attacked")
    return {name: count.tolist() for name, count in zip(names, counts, strict=True)}


def gradients(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """The images that a large targeted attack makes, without noise and averaged over its draws.

    Where gradients follow features that people see, as a robust model's do, those of the target
    appear. The attack is targeted PGD in L2 with 60 steps; of the arguments only the ball counts.
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
    with eval_mode(model.module):
        bare = pgd(model.module, images, labels, large, **how, generator=stream(seed, "bare"))
    noisy = pgd(model, images, labels, large, draws=16, **how, generator=stream(seed, "noisy"))
    columns = {"image": images, "noise off": bare, "mean of 16 draws": noisy}
    to = [shown.classes[int(target)] for target in targets]
    image_grid(columns, [f"to {name}" for name in to], out / "gradients.png")
    return {"radius": large.radius, "targets": to}


def noise(
    model: nn.Module, data: ImageData, attacks: Attacks, ball: Ball, out: Path, seed: int
) -> dict[str, Any]:
    """The strength of each layer's learned noise, in multiples of the disturbed tensor's.

    Noise at the inputs and at activations is measured on the images; no attack is run.
    """
    del attacks, ball, seed
    strengths: dict[str, float] = {}
    if isinstance(model, NoisyModel):
        images = data[:_BATCH].images.to(device_of(model, data.pixels))
        strengths = model.strengths(images)
    if not strengths:
        raise InputError("the model has no learned noise to draw")
    if broken := [name for name, strength in strengths.items() if not math.isfinite(strength)]:
        raise InputError(f"the noise at {broken[0]} is not finite: the model's weights are broken")
    strength_bars(strengths, out / "noise.png")
    return {"strengths": strengths}


PICTURES: dict[str, Draw] = {"cost": cost, "votes": votes, "gradients": gradients, "noise": noise}


def _attacked(
    model: nn.Module,
    data: ImageData,
    attack: Attack,
    ball: Ball,
    seed: int,
    cache: ExampleCache | None = None,
) -> Images:
    """Return adversarial examples of all images; those in ``cache`` are not made again."""
    device = device_of(model, data.pixels)
    images, labels = data.images.to(device), data.labels.to(device)
    world = "" if cache is None else Fingerprint().of(model, data.hash, attack, ball, seed)
    parts = []
    for at in track(range(0, len(images), _BATCH), "attacking", shown=Processes().main):
        key = f"{world}-{at}"
        if cache is not None and cache.has(key):
            parts.append(cache.get(key)[0].to(device))
            continue
        batch, generator = slice(at, at + _BATCH), stream(seed, "picture", at)
        parts.append(attack(model, images[batch], labels[batch], ball, generator=generator))
        if cache is not None:
            cache.put(key, parts[-1], Cost())
    return torch.cat(parts)


def _timed(smooth: SmoothedClassifier, images: Images, stop: str) -> tuple[Prediction, float]:
    """Return the answer and the median milliseconds of a few repeats."""
    spent = []
    for _ in range(_REPEATS):
        begun = time.perf_counter()
        answer = smooth.predict(images, stop=stop)
        spent.append(1000 * (time.perf_counter() - begun))
    return answer, sorted(spent)[_REPEATS // 2]


def _mark_front(points: list[dict[str, float]], name: str, axis: str) -> None:
    """Mark the points on the Pareto front: no other is as accurate for less, or more accurate."""
    for point in points:
        place = point[name], -point[f"{name} {axis}"]
        others = [(other[name], -other[f"{name} {axis}"]) for other in points]
        beaten = (o[0] >= place[0] and o[1] >= place[1] and o != place for o in others)
        point[f"front {name} {axis}"] = float(not any(beaten))
