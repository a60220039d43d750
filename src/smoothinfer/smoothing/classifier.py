"""`SmoothedClassifier`: many noisy passes put to the vote, as one plain module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smoothinfer.errors import InputError, check_images
from smoothinfer.runtime.modes import check_eval
from smoothinfer.engine.members import member_of
from smoothinfer.numerics.randomness import fresh_seed, isolated_rng
from smoothinfer.engine.passes import Engine
from smoothinfer.engine.stopping import Question, Stopping, stopping
from smoothinfer.engine.voting import RULES, Rule, rule_of
from smoothinfer.types import Counts, Images, Labels, Logits, Scores


@dataclass(frozen=True)
class Prediction:
    """The verdicts on N images.

    Attributes:
        labels: (N,) the decision of the rule.
        counts: (N, K) how many passes put each class first.
        samples: (N,) passes used.
        scores: (N, K) of the rule, log scale.
        decided: (N,) whether the stopping rule was satisfied; with ``"fixed"`` always.
    """

    labels: Labels
    counts: Counts
    samples: Tensor
    scores: Scores
    decided: Tensor


class SmoothedClassifier(nn.Module):
    """g(x) = argmax_y sum_i V(f(x, noise_i))_y over ``samples`` passes. Equation (8).

    Args:
        model: a `NoisyModel`, or any random module (left-on dropout, another's noise), in
            eval mode.
        samples: passes n.
        rule: a name in ``RULES``, ``"ranks:1,0.3"``, or a `Rule`.
        seed: key of the members; ``None`` draws fresh ones at each call, as a deployment
            should, since an attacker must not know them.
        tile: images of one forward; by default what suits the device.
        per_image: input noise for every image of its own, instead of one for all images of a
            pass.
        precision: ``"auto"``, ``"bf16"`` or ``"fp32"``, see `Engine`; gradients are fp32 but
            under autocast.

    Raises:
        InputError: ``samples`` is less than 1 or the rule is unknown.

    Source: Nemcovsky et al. 2019, arXiv 1911.07198, equations (7)-(13).

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> smooth = SmoothedClassifier(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=8, seed=0)
    >>> answer = smooth.predict(torch.rand(2, 1, 2, 2))
    >>> answer.counts.sum(1).tolist()
    [8, 8]
    """

    def __init__(
        self,
        model: nn.Module,
        samples: int = 512,
        rule: str | Rule = "prediction",
        seed: int | None = None,
        *,
        tile: int | None = None,
        per_image: bool = False,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        for name, count in (("samples", samples), ("tile", tile)):
            if count is not None and (count != int(count) or count < 1):
                raise InputError(f"{name} must be at least 1 and whole, not {count}")
        self.model, self.samples, self.seed = model, samples, seed
        self.rule, self.rule_name = rule_of(rule), rule if isinstance(rule, str) else "custom"
        self.tile, self.per_image, self.precision = tile, per_image, precision
        self.classes: int | None = None  # found out by the first call
        self.training = model.training

    @property
    def hard(self) -> bool:
        """Whether gradients are those of a surrogate: its scores differ where they are asked."""
        return not self.rule.differentiable

    def train(self, mode: bool = True) -> Self:
        """Change the mode of this module alone; a wrapped model still in training goes to eval.

        Tools switch what they attack to eval mode, which would turn off dropout left on in a
        random model: one that is in eval mode already stays just as it is.
        """
        self.training = mode
        if not mode and self.model.training:
            self.model.eval()
        return self

    def forward(self, images: Images) -> Scores:
        """Return scores (N, K) on a log scale; differentiable in the images.

        A hard vote has no gradient. Where one is asked for, the answer is the soft vote's, the
        log mean probability, values and all: a gradient taken at saturated hard scores would
        mask the model from every loss. Memory holds one pass at a time; the backward pass runs
        each again.

        Without a ``seed`` the members' key comes from PyTorch's global generator, so that an
        attack under ``torch.manual_seed`` can be repeated; `predict` asks the operating system.
        Pixels are not checked here: an attack may step out of [0, 1].
        """
        check_eval(self.model)
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        if not (torch.is_grad_enabled() and images.requires_grad):
            return self._vote(
                images, seed, stopping("fixed", self._question(images), len(images))
            ).scores
        draws = [self._pass(images, seed, s) for s in range(self.samples)]
        return _scores(self.rule if self.rule.differentiable else RULES["soft"], draws)

    def _pass(self, images: Images, seed: int, s: int) -> Logits:
        # A member's noise depends on its key alone, so running it again is safe.
        def run(points: Images) -> Logits:
            return member_of(self.model, seed, s, self.per_image)(points)

        return checkpoint(run, images, use_reentrant=False, preserve_rng_state=False)

    def predict(
        self,
        images: Images,
        samples: int | None = None,
        *,
        stop: str = "fixed",
        delta: float = 1e-3,
    ) -> Prediction:
        """Decide each image by vote, with no more passes than its decision needs.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
            samples: the most passes an image gets, instead of the classifier's own number.
            stop: ``"fixed"`` uses them all; ``"exact"`` stops when nobody can catch the leader,
                with the answer that all passes would give; ``"ppr"`` when the leader is, but for
                probability ``delta``, the class that most passes choose; ``"betting"`` likewise
                for votes that are not whole, such as soft ones.
            delta: probability of a decided answer other than that of infinitely many passes.

        Raises:
            InputError: images are malformed, the model is in training mode, or ``stop`` is
                unknown or does not suit the voting rule.
        """
        check_images(images)
        if len(images) == 0:
            raise InputError("there are no images to predict")
        most = self.samples if samples is None else samples
        if most < 1:
            raise InputError(f"samples must be at least 1, not {most}")
        seed = fresh_seed() if self.seed is None else self.seed
        question = self._question(images, most, delta)
        return self._vote(images, seed, stopping(stop, question, len(images)))

    def _question(
        self, images: Images, samples: int | None = None, delta: float = 1e-3
    ) -> Question:
        check_eval(self.model)
        if self.classes is None:
            with torch.no_grad(), isolated_rng(0):  # must not move on the global generator
                try:
                    self.classes = self.model(images[:1]).shape[1]
                except RuntimeError as error:
                    told = f"{images.dtype} images of shape {tuple(images.shape[1:])}"
                    raise InputError(f"the model does not take {told}: {error}") from error
            if self.classes < 2:
                raise InputError(f"a vote needs at least 2 classes, the model has {self.classes}")
        return Question(self.rule, samples or self.samples, delta, self.classes)

    def _vote(self, images: Images, seed: int, ask: Stopping) -> Prediction:
        """Run passes from look to look; decided images leave, the others fill the tiles.

        Where a pass depends on an image's place in its batch (left-on dropout), and the answer must
        be that of all passes, they stay, and their votes no longer count.
        """
        engine = Engine(
            self.model,
            images,
            seed,
            tile=self.tile,
            per_image=self.per_image,
            precision=self.precision,
        )
        active, first = torch.arange(len(images)), 0
        counts = torch.zeros(ask.sums.shape, dtype=torch.int64)
        used, decided = torch.zeros(2, len(images), dtype=torch.int64)
        for look in ask.looks():
            stay = ask.exactly and engine.by_place
            seen = images if stay else images[active]
            for every in engine.blocks(seen, first, look - first):
                block = every[:, active] if stay else every
                firsts = _per_pass(RULES["prediction"], block)
                counts[active] += firsts.sum(0).long().cpu()
                hard = self.rule is RULES["prediction"]
                ask.add(active, firsts if hard else _per_pass(self.rule, block))
            first = look
            used[active] = look
            settled = ask.decided(active, look)
            decided[active] = settled.long()
            active = active[~settled]
            if len(active) == 0:
                break
        scores = self.rule.scores(ask.sums / used[:, None]).float()
        found = (scores.argmax(1), counts, used, scores, decided.bool())
        return Prediction(*(tensor.to(images.device) for tensor in found))

    def extra_repr(self) -> str:
        return f"samples={self.samples}, rule={self.rule_name}, seed={self.seed}"


def frozen(model: nn.Module, seed: int = 0, samples: int = 1) -> SmoothedClassifier:
    """Return ``model`` held still: the soft vote of the same ``samples`` passes at every call.

    A deterministic, differentiable view for tools that refuse randomness. What it shows is the
    robustness of these passes, not of the random model: an attack that knows them fits them. Say so
    beside a figure, and vote again on fresh passes.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> still = frozen(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=4)
    >>> images = torch.rand(2, 1, 2, 2)
    >>> bool((still(images) == still(images)).all())
    True
    """
    return SmoothedClassifier(model, samples, rule="soft", seed=seed)


def _scores(rule: Rule, draws: list[Logits]) -> Scores:
    mean = torch.stack([rule.votes(logits.float()) for logits in draws]).mean(0)
    return rule.scores(mean)


def _per_pass(rule: Rule, block: Tensor) -> Tensor:
    """Return the votes (S, N, K) of S passes."""
    return rule.votes(block.flatten(0, 1)).unflatten(0, block.shape[:2])
