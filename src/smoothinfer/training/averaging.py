"""The moving average of the weights, which is validated and saved in their place."""

from functools import partial
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """Return a moving average of the weights and buffers of ``model``; ``None`` without decay."""
    if not decay:
        return None
    return AveragedModel(model, multi_avg_fn=partial(_move_average, decay), use_buffers=True)


def _move_average(decay: float, averages: Any, current: Any, count: Any) -> None:
    """Move averages towards current values; early averages move faster than ``decay`` says."""
    rate = min(decay, (1 + float(count)) / (10 + float(count)))
    get_ema_multi_avg_fn(rate)(averages, current, count)
