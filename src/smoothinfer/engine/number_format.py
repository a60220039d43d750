"""Which number format the passes of a planned model run in, and why not a shorter one."""

import torch

from smoothinfer.engine.members import NoisyNetwork, noisy_images
from smoothinfer.engine.plan import Plan
from smoothinfer.numerics.precision import resolve_precision
from smoothinfer.types import Images


def choose_format(
    model: NoisyNetwork, plan: Plan, images: Images, precision: str, alike: bool
) -> tuple[str, str]:
    """Return ``"bf16"`` or ``"fp32"``, and why not bfloat16 where the device has it.

    Args:
        model, plan: the model and how it is run.
        images: (N, C, H, W), of which one is tried.
        precision: see `Engine`. ``"auto"`` keeps a model without noise in fp32: attacks stop right
            behind the decision boundary, where rounding would overturn answers.
        alike: whether the model has no noise.

    Raises:
        InputError: the precision is unknown.
    """
    found = resolve_precision(precision, images.device)
    if found == "fp32" or len(images) == 0:
        return found, ""
    fault = plan.try_bf16(model.module, images[:1].expand(2, *images.shape[1:]))
    if not fault and precision == "auto" and alike:
        fault = "the model has no noise"
    return ("fp32", fault) if fault else (found, "")


def is_without_noise(model: NoisyNetwork, plan: Plan, images: Images) -> bool:
    """Say whether all passes of a planned model are alike."""
    if plan.random or len(images) == 0 or model.sampler_for(plan, torch.float32).size:
        return False
    return torch.equal(noisy_images(model.inputs, images[:1], seed=0, s=0), images[:1])
