"""What every attack asks of its input, before any work."""

from __future__ import annotations

from torch import nn

from smoothinfer.errors import InputError, check_images, check_labels
from smoothinfer.models import check_eval
from smoothinfer.numerics.balls import Ball, check_ball
from smoothinfer.types import Images, Labels


def check_attack(
    model: nn.Module, images: Images, labels: Labels, ball: Ball, **counts: int | None
) -> None:
    """Raise `InputError` unless an attack can begin.

    Args:
        model: batch normalisation in eval mode.
        images, labels, ball: what the attack was given.
        counts: numbers that must be at least 1, or ``None``.
    """
    check_ball(ball)
    check_eval(model)
    check_images(images)
    check_labels(labels, images)
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, not {count}")
