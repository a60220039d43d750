"""Recipes of leaderboards: which models are judged, on which images, by which attacks."""

from dataclasses import dataclass, field

from torch import nn

from smoothinfer.attacks.standard_attack import BUDGETS
from smoothinfer.building import defend
from smoothinfer.checkpoints import load
from smoothinfer.config.components import Component
from smoothinfer.errors import InputError, choose, plain_int
from smoothinfer.evaluation.standing import ASKED_AGAIN
from smoothinfer.noise.input_noise import with_input_noise
from smoothinfer.noise.noisy_model import NoisyModel
from smoothinfer.runtime.processes import Processes

_LONGEST = 60  # letters of a name, which is also that of a file


@dataclass(frozen=True)
class Claim:
    """A published figure: in words, as a share of images if it is an accuracy, and its source."""

    text: str
    source: str
    value: float | None = None


@dataclass(frozen=True)
class Entry:
    """One model of a leaderboard.

    Attributes:
        model: whatever `load` takes.
        defence: a component of ``DEFENCES`` around the model's network without its noise.
        others: further models, for a mixture.
        sigma: Gaussian input noise; by default the model's own.
        claim: of its authors.
        note: for the reader.
    """

    model: str
    defence: Component | None = None
    others: list[str] = field(default_factory=list)
    sigma: float | None = None
    claim: Claim | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.others and self.defence is None:
            raise InputError("others are for a defence that takes several networks: name it")

    def build(self, shape: tuple[int, int, int]) -> nn.Module:
        """Return the model in eval mode, on this process's device."""
        model = load(self.model)
        if self.defence is not None:
            networks = [_bare(load(each)) for each in (self.model, *self.others)]
            model = defend(self.defence, networks, shape).eval()
        return with_input_noise(model, self.sigma).to(Processes().device)


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, NoisyModel) else model


@dataclass(frozen=True)
class BoardRecipe:
    """What a leaderboard measures.

    Attributes:
        entries: the models, by the names that the table shows.
        data, split, limit, first: the images.
        dear_limit: images of the standard attack and of PGD with 16 draws and more: the first.
        ball: of the attacks.
        budget: of the standard attack.
        samples: passes of a vote.
        seed: names the random streams.
        audit: audit every model too, minutes for each.
        description: for the reader.
    """

    entries: dict[str, Entry]
    data: str
    split: str = "test"
    limit: int | None = None
    first: bool = False
    dear_limit: int | None = None
    ball: Component = Component("linf", {"radius": 8 / 255})
    budget: str = "standard"
    samples: int = 64
    seed: int = 0
    audit: bool = False
    description: str = ""

    def __post_init__(self) -> None:
        plain_int("samples", self.samples, at_least=ASKED_AGAIN)
        choose("budget", BUDGETS, self.budget)
        for name, count in (("limit", self.limit), ("dear_limit", self.dear_limit)):
            if count is not None:
                plain_int(name, count, at_least=1)
        for name in self.entries:
            if not name or "/" in name or "\0" in name or name[0] == "." or len(name) > _LONGEST:
                raise InputError(
                    f"entry {name[:_LONGEST]!r}: its card needs the name of a file, without a dot "
                    f"in front or a slash, of at most {_LONGEST} letters"
                )
