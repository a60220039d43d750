"""A pool of drawn networks: weights that wait in memory, used at random and renewed all the time.

Drawing the noisy weights of a pass takes longer than a small network's forward pass on one image.
"""

from __future__ import annotations

import atexit
import random
import threading
import weakref
from collections.abc import Iterator

from smoothinfer.engine.sampler import Sampler
from smoothinfer.engine.stacking import Packed, Stacked
from smoothinfer.errors import InputError, plain_float, plain_int
from smoothinfer.numerics.randomness import fresh_seed, stream

BLOCK = 32  # networks that run together
_THREAD = "pool"
_EXIT = threading.Event()  # set when the interpreter ends
_PATIENCE = 10.0  # seconds that the exit waits for a block that is being drawn
Drawn = dict[str, Stacked | Packed]


class NetworkPool:
    """Networks of one noisy model in blocks of 32, each block drawn afresh now and then.

    A vote takes as many blocks as it needs, at random and without repetition. Its passes are
    independent of each other, as fresh ones are. Two votes are not: until a block is renewed they
    may share it. Every network leaves after ``networks / renewed`` seconds on average.

    What an attacker gains: who asks many times within that time asks the same networks again, so
    each answer tells more about the next one than with fresh draws. Who could guess the networks
    could attack them by name: the draws come from the operating system, and must stay in memory.

    Args:
        networks: in memory, a multiple of 32; they should be several times the passes of a vote.
        renewed: networks drawn anew each second, by a thread in the background; 0 for never.

    Raises:
        InputError: a number is out of range.

    >>> NetworkPool(32, renewed=0)
    NetworkPool(32 networks, 0 renewed each second)
    """

    def __init__(self, networks: int = 256, renewed: float = 32.0) -> None:
        self.networks = plain_int("networks", networks, BLOCK)
        if networks % BLOCK:
            raise InputError(f"networks must be a multiple of {BLOCK}, not {networks}")
        self.renewed = plain_float("renewed", renewed, at_least=0)
        self._lock = threading.Lock()
        self._sampler: Sampler | None = None
        self._blocks: list[Drawn] = []
        self._random = random.SystemRandom()
        self._renewals = 0

    def blocks(self, sampler: Sampler) -> Iterator[Drawn]:
        """Yield blocks of 32 networks at random; after the last, blocks drawn for this vote.

        Args:
            sampler: of the model as it is now; the pool is filled anew when it has changed.
        """
        with self._lock:
            if sampler is not self._sampler:
                self._fill(sampler)
            order = self._random.sample(self._blocks, len(self._blocks))
        yield from order
        while True:
            yield draw_block(sampler)

    @property
    def renewals(self) -> int:
        """How many networks were drawn anew."""
        return BLOCK * self._renewals

    def _fill(self, sampler: Sampler) -> None:
        self._blocks = [draw_block(sampler) for _ in range(self.networks // BLOCK)]
        self._sampler = sampler
        if self.renewed > 0:
            weak = weakref.ref(self), weakref.ref(sampler), BLOCK / self.renewed
            threading.Thread(target=_renew, args=weak, name=_THREAD, daemon=True).start()

    def renew(self, sampler: Sampler) -> bool:
        """Draw the next block anew; return whether the pool still belongs to ``sampler``."""
        block = draw_block(sampler)
        with self._lock:
            if sampler is not self._sampler:
                return False
            self._blocks[self._renewals % len(self._blocks)] = block
            self._renewals += 1
        return True

    def __getstate__(self) -> dict[str, object]:
        return {"networks": self.networks, "renewed": self.renewed}  # what it holds is a secret

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"NetworkPool({self.networks} networks, {self.renewed:g} renewed each second)"


def draw_block(sampler: Sampler) -> Drawn:
    """Draw 32 networks, from a generator that the operating system seeds.

    The names are those of the noisy weights and of the biases beside them; each value holds the
    tensors of 32 networks.
    """
    assert sampler.plan is not None
    device = next(iter(sampler.clean.values())).device
    streams = [stream(fresh_seed(), "pool", device=device) for _ in range(BLOCK)]
    return sampler.plan.pack(sampler.draw_block(streams), sampler.fixed)


def _renew(pool: weakref.ref[NetworkPool], sampler: weakref.ref[Sampler], seconds: float) -> None:
    """Renew a block every few ``seconds``, as long as somebody uses the pool."""
    while not _EXIT.wait(seconds):
        owner, drawn_by = pool(), sampler()
        if owner is None or drawn_by is None or not owner.renew(drawn_by):
            return
        del owner, drawn_by


@atexit.register
def _end_threads() -> None:
    """End the threads: one that still draws while the interpreter is torn down aborts it."""
    _EXIT.set()
    for each in threading.enumerate():
        if each.name == _THREAD:
            each.join(_PATIENCE)
