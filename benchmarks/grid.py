"""What a sweep over sigma, passes and rules costs, against its cells one by one."""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import smoothinfer as si
from benchmarks import naive
from benchmarks.subject import RADIUS, network
from smoothinfer.sweep_recipe import SweepRecipe
from smoothinfer.workflows.sweep import run_sweep

PASSES = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
RULES = ["prediction", "weighted", "soft"]


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    """A sweep of 10 numbers of passes and 3 rules, its largest run alone, and cell by cell."""
    data = si.load_data(options.data, "test", options.grid_images, first=True)
    grid = [(n, rule) for n in PASSES for rule in RULES]
    _grid(options, data, [1], ["prediction"])  # plans are made once
    whole = _grid(options, data, PASSES, RULES)
    largest = _grid(options, data, PASSES[-1:], RULES[:1])
    cells = sum(_grid(options, data, [n], [rule]) for n, rule in grid)
    a_pass, a_step = _naive(options, data)
    return {
        "images": len(data),
        "cells": len(grid),
        "seconds of the sweep": whole,
        "times its largest run": whole / largest,
        "cell by cell, times the sweep": cells / whole,
        # Clean and attacked images are voted on, and each cell attacks by 7 steps.
        "cell by cell with the naive loop (from its passes), times the sweep": sum(
            2 * n * a_pass + 7 * a_step for n, _ in grid
        )
        / whole,
    }


def _grid(
    options: argparse.Namespace, data: si.ImageData, passes: Sequence[int], rules: Sequence[str]
) -> float:
    """Return the seconds of a sweep into an empty folder, from reading the model to the table."""
    recipe = SweepRecipe(
        models=[options.model],
        data=data.name,
        sigma=[options.sigma],
        attacks=["pgd(steps=7, step_size=2/255)"],
        samples=list(passes),
        rules=list(rules),
    )
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            run_sweep(recipe, Path(folder), data=data)
        return time.perf_counter() - begun


def _naive(options: argparse.Namespace, data: si.ImageData) -> tuple[float, float]:
    """Return the naive loop's seconds for a pass of all images, and for a step of PGD."""
    noisy, count = naive.with_weight_noise(network()).eval(), options.naive_passes
    naive.predict(noisy, data.images, 2, options.sigma, 256)
    begun = time.perf_counter()
    naive.predict(noisy, data.images, count, options.sigma, 256)
    voted = time.perf_counter()
    naive.pgd(noisy, data.images, data.labels, RADIUS, count)
    return (voted - begun) / count, (time.perf_counter() - voted) / count
