"""What stopping saves, and what bfloat16 changes: a shipped model's verdicts on real images."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

import torch
from torch import Tensor

import smoothinfer as si
from benchmarks import naive
from benchmarks.subject import RADIUS, network
from smoothinfer.evaluation.judgement import points
from smoothinfer.numerics.precision import has_bf16_units
from smoothinfer.numerics.statistics import mean_of


def stopping(options: argparse.Namespace) -> dict[str, Any]:
    """What ppr (delta 0.001) and value save of 512 passes, clean and under PGD-7."""
    model, images, labels = _model_and_data(options, options.images)
    generator = torch.Generator().manual_seed(0)
    attacked = si.pgd(
        model, images, labels, si.Linf(RADIUS), step_size=2 / 255, generator=generator
    )
    smooth, found = si.SmoothedClassifier(model, 512, seed=0), {}
    for name, seen in (("clean", images), ("attacked", attacked)):
        smooth.predict(seen[:64], samples=8)  # plans are made once
        begun = time.perf_counter()
        whole = smooth.predict(seen)
        fixed = time.perf_counter() - begun
        right = (whole.labels == labels).double()
        for stop in ("ppr", "value"):
            smooth.predict(seen[:64], stop=stop)
            begun = time.perf_counter()
            answer = smooth.predict(seen, stop=stop, delta=1e-3)
            spent = time.perf_counter() - begun
            share = float(answer.samples.double().mean()) / 512
            change = (answer.labels == labels).double() - right
            place = found[f"{stop}, {name}"] = {
                "mean passes": 512 * share,
                "mean passes of a test that knew the shares": _known(whole.counts, 1e-3),
                "decided": float(answer.decided.double().mean()),
                "accuracy": float((answer.labels == labels).double().mean()),
                "points from 512 passes": points(
                    mean_of(float(change.mean()), float(change.std()), len(change))
                ),
                "times faster than fixed": fixed / spent,
                "saving seen in wall-clock": (1 - spent / fixed) / (1 - share),
            }
            if name == "clean":
                place |= _against_naive(smooth, seen[:256], stop, options)
    return found


def _against_naive(
    smooth: si.SmoothedClassifier, images: Tensor, stop: str, options: argparse.Namespace
) -> dict[str, float]:
    """Return how many times faster a batch of 256 is voted on than by the naive loop of 512."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        smooth.predict(images, stop=stop, delta=1e-3)
        times.append(time.perf_counter() - begun)
    naive_seconds = 512 * _naive_pass(images, options) * len(images)
    return {"times faster than the naive loop of 512, 256 images": naive_seconds / sorted(times)[1]}


def _known(counts: Tensor, delta: float) -> float:
    """Return what Wald's test of the two largest shares against a tie would use, at most n each.

    ln(1/delta) / ((p + q) KL(p / (p + q) || 1/2)): of all tests that err with probability delta
    it needs the fewest passes on average, and it knows p and q, which ours does not.

    >>> round(_known(torch.tensor([[90, 10]]), 1e-3), 1)
    18.8
    """
    passes = int(counts[0].sum())
    shares = counts.double().topk(2, 1).values / passes
    both = shares.sum(1)
    sides = (shares / both[:, None]).clamp(1e-12)
    evidence = both * (sides * (2 * sides).log()).sum(1)
    return float((-math.log(delta) / evidence.clamp(min=1e-12)).clamp(max=passes).mean())


def _naive_pass(images: Tensor, options: argparse.Namespace) -> float:
    """Return the naive loop's seconds for one pass of one image, noise as in ours."""
    noisy = naive.with_weight_noise(network()).eval()

    def loop() -> object:
        return naive.predict(noisy, images, options.naive_passes, options.sigma, 256)

    loop()
    begun = time.perf_counter()
    loop()
    return (time.perf_counter() - begun) / (len(images) * options.naive_passes)


def agreement(options: argparse.Namespace) -> dict[str, Any]:
    """Verdicts of 512 passes in bfloat16 against fp32, the same members."""
    model, images, labels = _model_and_data(options, options.verdicts)
    one, two = (
        si.SmoothedClassifier(model, options.samples, seed=0, precision=precision)
        for precision in ("fp32", "bf16")
    )
    exact, short = one.predict(images, stop="ppr"), two.predict(images)
    full = one.predict(images)
    same, decided = short.labels == full.labels, exact.decided
    right = [float((answer.labels == labels).double().mean()) for answer in (full, short)]
    return {
        "in hardware": has_bf16_units("cpu"),
        "samples": options.samples,
        "agreement": float(same.double().mean()),
        "agreement where ppr decides": float(same[decided].double().mean()),
        "accuracy fp32, bf16": right,
    }


def _model_and_data(
    options: argparse.Namespace, count: int
) -> tuple[si.NoisyModel, Tensor, Tensor]:
    data = si.load_data(options.data, "test", count, first=True)
    model = si.load(options.model)
    assert isinstance(model, si.NoisyModel)
    model = model.with_inputs(si.Gaussian(options.sigma)).eval()
    return model, data.images, data.labels
