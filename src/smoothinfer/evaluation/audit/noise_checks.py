"""Checks 9 to 11 and 13: does the noise add robustness, or only secrecy?"""

import hashlib

import torch
from torch import Tensor

from smoothinfer.evaluation.audit.chance import more_than, worse
from smoothinfer.evaluation.audit.context import BATCH, AuditContext
from smoothinfer.evaluation.audit.finding import (
    ALARM,
    CLEAR,
    NOTE,
    SKIPPED,
    Finding,
    check,
    judge,
)
from smoothinfer.numerics.randomness import isolated_rng
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.types import Images


@check(
    9,
    "surrogates",
    "PGD on the network with its noise off, and on the soft vote, tried on the vote",
    "a surrogate's attack is 1 point stronger than the direct one, or the network without noise "
    "1 point more robust (p < 0.001; a note: as robust)",
    static="A model without noise has none to turn off.",
)
def transfer(context: AuditContext) -> Finding:
    """Attacks made elsewhere must not beat the direct one."""
    part = context.few()
    direct = context.is_correct(context.direct()[part], "transfer", rows=part)
    measured, drops = [f"direct: {100 * direct.float().mean():.1f} %"], []
    tries = {"soft vote": (context.model, context.pgd(gradient="pooled"))}
    if context.base is not None:
        tries["noise off"] = (context.base, context.pgd(draws=1))
    tests = len(tries) + 1
    transferred = {
        name: context.attack(name, run, target=target, rows=part)
        for name, (target, run) in tries.items()
    }
    for name, images in transferred.items():
        kept = context.is_correct(images, "transfer", rows=part)
        drops.append(worse(direct, kept, tests=tests))
        measured.append(f"from {name}: {100 * kept.float().mean():.1f} %")
    useless = False
    if context.base is not None:
        with torch.no_grad():
            answers = logits_of(context.base, transferred["noise off"])
        bare = answers.argmax(1) == context.labels[part]
        measured.append(f"its network without noise, attacked: {100 * bare.float().mean():.1f} %")
        useless = bool(direct.sum() <= bare.sum())
        without = worse(bare, direct, tests=tests, candidates=context.clean()[part])
        if without.fired:
            return transfer.finding(
                ALARM,
                "; ".join(measured),
                "Under attack the noise adds nothing: the same network without it is more robust.",
            )
        drops.append(without)
    found = judge(
        transfer,
        drops,
        "; ".join(measured),
        "An attack made on a surrogate beats the direct one: the direct attack does not "
        "follow the vote. Quote the stronger.",
        "No surrogate beats the direct attack.",
    )
    if useless and found.state == CLEAR:
        verdict = "Under attack the noise adds nothing over the same network without it."
        return transfer.finding(NOTE, "; ".join(measured), verdict)
    return found


@check(
    10,
    "secrecy",
    "PGD on 16 known draws, judged on them; PGD on fresh draws, judged on fresh ones",
    "known noise is at least 5 points weaker (p < 0.001)",
    static="A model without noise has none to keep secret.",
)
def secrecy(context: AuditContext) -> Finding:
    """Known noise must not be much easier to attack than fresh noise."""
    part, known = context.few(), context.frozen(16)
    adversarial = context.attack("known noise", context.pgd(draws=1), target=known, rows=part)
    with torch.no_grad():  # in the batches of the attack: noise may depend on the place in one
        answers = torch.cat([known.predict(batch).labels for batch in adversarial.split(BATCH)])
    fixed = answers == context.labels[part]
    again = context.attack("fresh noise", context.pgd(draws=16), rows=part)
    fresh = context.is_correct(again, "secrecy", rows=part)
    measured = (
        f"known noise {100 * fixed.float().mean():.1f} %, fresh {100 * fresh.float().mean():.1f} %"
    )
    gap = worse(fresh, fixed, points=5.0)
    return judge(
        secrecy,
        [gap],
        measured,
        f"An attacker who knows the noise breaks {gap.points:.1f} points more: that much of the "
        "robustness is secrecy. A memorised or predictable seed loses it.",
        "Knowing the noise helps little.",
    )


@check(
    11,
    "persistent attacker",
    "the same adversarial images, voted on again and again",
    "10 votes lose more than 1 point, or 100 votes more than 2 (p < 0.001; a note: a single draw "
    "differs)",
    static="A model without noise gives the same answer to every attempt.",
)
def persistence(context: AuditContext) -> Finding:
    """A fresh vote must agree with the attack's own count, and so must a hundred."""
    adversarial, first = context.direct(), torch.zeros_like(context.attacked())
    first[context.survivors()] = True
    kept = first.clone()
    after = {}
    for turn in range(1, context.effort.votes + 1):
        rows = kept.nonzero().flatten()  # only images that are still correct can fall
        kept[rows] = context.is_correct(adversarial[rows], "again", turn, rows=rows)
        if turn in (1, 10, 100):
            after[turn] = 100 * float(kept.float().mean())
    fresh = 100 * float(context.attacked().float().mean())
    single = _last_draw(context, adversarial)
    own = 100 * float(single.float().mean())
    measured = f"a single draw {own:.1f} %, a fresh vote {fresh:.1f} %; right in one "
    measured += "vote " + ", in all of ".join(
        f"{share:.1f} %" if k == 1 else f"{k} votes {share:.1f} %" for k, share in after.items()
    )
    broken = int((first & ~kept).sum())
    measured += f"; {broken} of the {int(first.sum())} images that survived the attack were lost"
    lost = more_than(first & ~kept, 0.02 if max(after) >= 100 else 0.01, first)
    found = judge(
        persistence,
        [lost],
        measured,
        "Votes near a tie change from vote to vote: an attacker who may submit an image again "
        "and again succeeds. Quote the accuracy over repeated votes, or use more samples.",
        "Fresh votes agree.",
    )
    differs = worse(single, context.attacked()), worse(context.attacked(), single)
    if found.state == CLEAR and any(each.fired for each in differs):
        return persistence.finding(
            NOTE,
            measured,
            "Fresh votes agree with each other, not with a single draw: an attack that is judged, "
            "stopped or chosen on its own last draw misreports this model. Judge by votes.",
        )
    return found


def _last_draw(context: AuditContext, images: Images) -> Tensor:
    with torch.no_grad(), isolated_rng(context.seed):
        answers = [logits_of(context.model, part).argmax(1) for part in images.split(BATCH)]
    return torch.cat(answers) == context.labels


@check(
    13,
    "selection",
    "hashes of the audited images among those of training and tuning",
    "any image is among them",
)
def selection(context: AuditContext) -> Finding:
    """The images of the audit must be new to the model and its settings."""
    if context.seen is None:
        return selection.finding(
            SKIPPED,
            "the images of training and tuning are not known",
            "Give them as seen=..., or audit a model whose card names its training data.",
        )
    mine = image_hashes(context.images)
    shared = sum(one in context.seen for one in mine)
    measured = f"{shared} of {len(mine)} images"
    if shared:
        return selection.finding(
            ALARM,
            measured,
            "The audit uses images on which the model or its settings were chosen: its accuracy is "
            "biased upwards.",
        )
    return selection.finding(CLEAR, measured, "All images are new to the model.")


def image_hashes(images: Images) -> list[bytes]:
    """Return the SHA-256 of each image in 8-bit pixels.

    >>> one, two = image_hashes(torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)]))
    >>> one == two
    False
    """
    pixels = (images * 255).round().to(torch.uint8).cpu().contiguous()
    return [hashlib.sha256(one.numpy().tobytes()).digest() for one in pixels]
