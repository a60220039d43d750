"""`SmoothedClassifier`: many noisy passes put to the vote, as one plain module."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Self

import torch
from torch import nn

from smoothinfer.engine.members import member_of, run_passes
from smoothinfer.engine.passes import Engine
from smoothinfer.engine.pool import NetworkPool
from smoothinfer.engine.prediction import Prediction
from smoothinfer.engine.stopping import VoteSpec
from smoothinfer.engine.stops import stopping
from smoothinfer.engine.tally import vote
from smoothinfer.engine.voting import RULES, Rule, rule_of
from smoothinfer.errors import (
    MOST_PASSES,
    InputError,
    check_images,
    plain_float,
    plain_int,
    plain_seed,
)
from smoothinfer.numerics.randomness import fresh_seed
from smoothinfer.runtime.modes import check_eval, count_classes, is_training, switch_to_eval
from smoothinfer.smoothing.abstention import Abstention, KnownShares
from smoothinfer.types import Images, Scores


class SmoothedClassifier(nn.Module):
    """g(x) = argmax_y sum_i V(f(x, noise_i))_y over ``samples`` passes. Equation (8).

    The verdict, `Prediction.labels`, is taken from the sums before they are rounded, the lowest
    class in a tie. The scores of `forward` are float32: in close votes their argmax may differ.

    Args:
        model: a `NoisyModel`, or any random module (left-on dropout, third-party noise), in
            eval mode.
        samples: number of passes n.
        rule: a name in ``RULES``, ``"ranks:1,0.3"``, or a `Rule`.
        seed: key of the passes; ``None`` draws fresh ones at each call, as a deployment
            should, since an attacker must not know them.
        tile, per_image, precision: see `Engine`; gradients are fp32 except under autocast.
        pool: networks drawn in advance, for fast calls of `predict` on few images; not with a
            ``seed``. Evaluations and certificates draw afresh.
        abstention: learned by `learn_abstention`; `predict` needs it to abstain at a risk.

    Raises:
        InputError: ``samples``, ``seed`` or ``tile`` is no whole number or out of range, the rule
            is unknown, or both a seed and a pool are given.

    Source: Nemcovsky et al. 2019, arXiv 1911.07198, equations (7)-(13).

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> smooth = SmoothedClassifier(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=8, seed=0)
    >>> answer = smooth.predict(torch.rand(2, 1, 2, 2))
    >>> answer.counts.sum(1).tolist()
    [8, 8]
    """

    _volatile = ("_classes", "pool")  # no part of the model: two models are alike without them

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
        pool: NetworkPool | None = None,
        abstention: Abstention | KnownShares | None = None,
    ) -> None:
        super().__init__()
        if pool is not None and seed is not None:
            raise InputError("a pool's networks are drawn afresh: give either seed or pool")
        self.abstention, self.pool = abstention, pool
        self.model, self.samples = model, plain_int("samples", samples, 1, MOST_PASSES)
        self.seed = None if seed is None else plain_seed(seed)
        self.rule, self.rule_name = rule_of(rule), rule if isinstance(rule, str) else "custom"
        self.tile = None if tile is None else plain_int("tile", tile, 1)
        self.per_image, self.precision = per_image, precision
        self._classes: int | None = None  # counted by the first call
        self.training = is_training(model)

    @property
    def hard(self) -> bool:
        """Whether a gradient is that of a surrogate, whose scores differ from the rule's own."""
        return not self.rule.differentiable

    def train(self, mode: bool = True) -> Self:
        """Change the mode of this module alone; a wrapped model in training mode goes to eval.

        Tools switch the model they attack to eval mode, which would turn off dropout left on in a
        random model: one that is in eval mode already stays as it is.
        """
        self.training = mode
        if not mode:
            switch_to_eval(self.model)
        return self

    def forward(self, images: Images) -> Scores:
        """Return scores (N, K) on a log scale; differentiable in the images.

        A hard vote has no gradient. Where one is asked for, the scores are those of the soft vote,
        the log mean probability: a gradient taken at saturated hard scores would mask the model
        from every loss. Memory holds one pass at a time; the backward pass runs each again.

        Without a ``seed`` the key of the passes comes from PyTorch's global generator, so that an
        attack under ``torch.manual_seed`` can be repeated; `predict` asks the operating system.
        Pixels are not checked here: an attack may step out of [0, 1].
        """
        check_eval(self.model)
        seed = int(torch.randint(2**62, ())) if self.seed is None else self.seed
        if not (torch.is_grad_enabled() and images.requires_grad):
            (answer,) = self._vote(images, seed, {"": self.rule}, [self.samples]).values()
            return answer.scores
        passes = [partial(self._run_pass, seed, s) for s in range(self.samples)]
        rule = self.rule if self.rule.differentiable else RULES["soft"]
        votes = [rule.votes(logits.float()) for logits in run_passes(passes, images)]
        return rule.scores(torch.stack(votes).mean(0))

    def _run_pass(self, seed: int, s: int, images: Images) -> Scores:
        scores: Scores = member_of(self.model, seed, s, self.per_image)(images)
        return scores

    def predict(
        self,
        images: Images,
        samples: int | None = None,
        *,
        stop: str = "fixed",
        delta: float = 1e-3,
        abstain: float | None = None,
        budget_ms: float | None = None,
    ) -> Prediction:
        """Decide each image by vote, with no more passes than its decision needs.

        Args:
            images: (N, C, H, W), pixels in [0, 1].
            samples: the most passes of an image, instead of the classifier's own number.
            stop: ``"fixed"`` uses them all; ``"exact"`` stops when no class can catch the leader,
                with the answer that all passes would give; ``"ppr"`` stops when the leader is,
                except with probability ``delta``, the class that most passes choose;
                ``"betting"`` likewise for fractional votes, such as soft ones; ``"value"``, or
                ``"value(price=0.0001)"``, when more passes are not worth their price, see `Value`.
            delta: probability of a decided answer other than that of infinitely many passes.
            abstain: abstain where the share of the answer is so small that, of the answers given,
                more than this share might be wrong; see `Abstention`.
            budget_ms: milliseconds from now, after which no further block of passes begins;
                `Prediction.samples` says how many each image got, ``decided`` which were cut off.

        Raises:
            InputError: images are malformed, the model is in training mode, a number is out of
                range, ``stop`` is unknown or does not suit the voting rule, or no abstention was
                learned that shows the risk.
        """
        deadline = time.monotonic()
        check_images(images)
        if len(images) == 0:
            raise InputError("there are no images to predict")
        if budget_ms is not None:
            deadline += plain_float("budget_ms", budget_ms, above=0) / 1000
        most = plain_int("samples", self.samples if samples is None else samples, 1, MOST_PASSES)
        stopping(stop, VoteSpec(self.rule, most, delta, classes=2), images=1)
        least = 0.0 if abstain is None else self.least_share(abstain)
        seed = fresh_seed() if self.seed is None else self.seed
        how = stop, delta, None if budget_ms is None else deadline, self.pool
        (answer,) = self._vote(images, seed, {"": self.rule}, [most], *how).values()
        return (
            answer if abstain is None else replace(answer, abstained=answer.share.double() < least)
        )

    def least_share(self, risk: float) -> float:
        """Return the share of passes below which `predict` abstains at this risk.

        Raises:
            InputError: no abstention was learned that shows it.
        """
        if self.abstention is None:
            raise InputError(
                "abstain needs a calibration: smooth.abstention = learn_abstention(smooth, data)"
            )
        return self.abstention.threshold(risk)

    def _vote(
        self,
        images: Images,
        seed: int,
        rules: Mapping[str, Rule],
        samples: Sequence[int],
        stop: str = "fixed",
        delta: float = 1e-3,
        deadline: float | None = None,
        pool: NetworkPool | None = None,
    ) -> dict[tuple[str, int], Prediction]:
        if self._classes is None:
            check_eval(self.model)  # later calls leave it to the engine
            self._classes = count_classes(self.model, images)
        how = {"classes": self._classes, "stop": stop, "delta": delta, "deadline": deadline}
        return vote(self.engine(images, seed, pool), images, rules, samples, **how)  # type: ignore[arg-type]

    def engine(self, images: Images, seed: int, pool: NetworkPool | None = None) -> Engine:
        """Return the engine that runs the passes of the ensemble ``seed`` on ``images``.

        With a ``pool`` the weights come from there, whatever the seed.
        """
        return Engine(
            self.model,
            images,
            seed,
            tile=self.tile,
            per_image=self.per_image,
            precision=self.precision,
            pool=pool,
        )

    def explain(self, images: Images) -> str:
        """Say how votes on such images run: format, tiles, passes at once, and why not faster.

        >>> from smoothinfer.noise import Gaussian, NoisyModel
        >>> noisy = NoisyModel(nn.Flatten(), inputs=Gaussian(0.1)).eval()
        >>> SmoothedClassifier(noisy, precision="fp32", tile=64).explain(torch.rand(1, 1, 2, 2))
        'Engine(fp32 on cpu, tiles of 64, up to 64 passes at once)'
        """
        check_images(images)
        return repr(self.engine(images, seed=0, pool=self.pool))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_classes": None}  # another model may be put in after a copy

    def extra_repr(self) -> str:
        return f"samples={self.samples}, rule={self.rule_name}, seed={self.seed}"


def frozen(model: nn.Module, seed: int = 0, samples: int = 1) -> SmoothedClassifier:
    """Return ``model`` with its noise fixed: the soft vote of the same passes at every call.

    A deterministic, differentiable view for tools that refuse randomness. A result obtained with
    it is the robustness of these passes, not of the random model: an attack that knows the passes
    fits them. Say so beside the figure, and vote again on fresh passes.

    Args:
        model: see `SmoothedClassifier`.
        seed: key of the passes.
        samples: number of passes.

    >>> from smoothinfer.noise import Gaussian, NoisyModel
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    >>> fixed = frozen(NoisyModel(net, inputs=Gaussian(0.1)).eval(), samples=4)
    >>> images = torch.rand(2, 1, 2, 2)
    >>> bool((fixed(images) == fixed(images)).all())
    True
    """
    return SmoothedClassifier(model, samples, rule="soft", seed=seed)
