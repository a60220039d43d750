"""The settings of a sweep: a frozen dataclass filled from YAML and ``--set key=value``."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothinfer.cli.numbers import read_range
from smoothinfer.config.components import Component
from smoothinfer.config.settings_files import apply_overrides, read_settings
from smoothinfer.config.typed import from_dict
from smoothinfer.data import checked_limit
from smoothinfer.errors import InputError, choose, plain_int
from smoothinfer.numerics.balls import BALLS, Ball

SMOKE = {"limit": 16, "samples": [1, 4], "seeds": [0]}


@dataclass(frozen=True)
class SweepRecipe:
    """A grid of settings: every combination of the lists is measured.

    Attributes:
        description: for the reader.
        models: {name: model as `load` takes it}; or a list of models.
        data, split, limit, first: the images; the first ``limit``, or some of each class.
        by_number: match the classes of models and data by number, not by name.
        sigma, units: Gaussian input noise, numbers or ranges ``"0:0.5:0.01"`` (end included); none
            leaves the models' own.
        attacks: components; none measures clean images only.
        attack_sigma: noise of the model that the attack sees; by default that of the setting.
            With a number, examples are made once for all sigmas.
        ball: where attacks may go.
        radius: radii of the ball, instead of its own, numbers or ranges as for sigma.
        rules, samples, seeds: of the votes.
        stop, delta: when a vote ends, see `SmoothedClassifier.predict`.
    """

    description: str = ""
    models: dict[str, str] | list[str] = field(default_factory=dict)
    data: str = ""
    split: str = "test"
    limit: int | None = None
    first: bool = False
    by_number: bool = False
    sigma: list[Any] | None = None
    units: str = "pixel"
    attacks: list[Any] = field(default_factory=lambda: ["pgd(steps=7)"])
    attack_sigma: float | None = None
    ball: Component = Component("linf", {"radius": 8 / 255})
    radius: list[Any] | None = None
    rules: list[str] = field(default_factory=lambda: ["prediction"])
    samples: list[int] = field(default_factory=lambda: [512])
    seeds: list[int] = field(default_factory=lambda: [0])
    stop: str = "fixed"
    delta: float = 1e-3

    def __post_init__(self) -> None:
        for name in ("models", "data", "rules", "samples", "seeds"):
            if not getattr(self, name):
                raise InputError(f"a sweep needs {name}")
        for name in ("sigma", "radius"):
            if getattr(self, name) == []:
                raise InputError(f"{name} is an empty list: give a number, or leave it out")
        for each in self.models.values() if isinstance(self.models, dict) else self.models:
            if not isinstance(each, str):
                raise InputError(f"models must be names or paths, not {each!r}")
        for seed in self.seeds:
            plain_int("seed", seed)
        checked_limit(self.limit)

    @property
    def named(self) -> dict[str, str]:
        """The models by their name in the rows."""
        if isinstance(self.models, dict):
            return self.models
        named = {Path(each).name: each for each in self.models}
        if len(named) < len(self.models):
            raise InputError("models need names of their own: write models: {NAME: PATH, ...}")
        return named

    @property
    def sigmas(self) -> list[float | None]:
        """The grid of sigmas, each once."""
        if self.sigma is None:
            return [None]
        return [*sorted({s for each in self.sigma for s in read_range("sigma", each)})]

    @property
    def balls(self) -> list[Ball]:
        """A ball for each radius."""
        if self.radius is None:
            return [self.ball.bind("ball", BALLS)()]
        radii = sorted({r for each in self.radius for r in read_range("radius", each)})
        return [choose("ball", BALLS, self.ball.name)(radius) for radius in radii]


def load_sweep(
    path: str | Path, overrides: Iterable[str] = (), scale: str = "short"
) -> SweepRecipe:
    """Read a sweep recipe at ``scale`` with ``key=value`` overrides; see `read_settings`.

    Raises:
        InputError: the file is missing or malformed, or a key is unknown.
    """
    content = apply_overrides(read_settings(path, scale, SMOKE), overrides)
    if "parts" in content:
        stem = Path(path).stem
        raise InputError(f"{path} is an experiment of several sweeps: smoothinfer reproduce {stem}")
    return from_dict(SweepRecipe, content, str(path))
