"""Which number format the passes of a planned model run in, and why not a shorter one."""

import torch

from smoothinfer.engine.members import NoisyNetwork, noisy_images
from smoothinfer.engine.plan import Plan
from smoothinfer.engine.sampler import Sampler
from smoothinfer.numerics.precision import resolve_precision
from smoothinfer.types import Images


def choose_sampler(
    model: NoisyNetwork, plan: Plan, images: Images, precision: str
) -> tuple[Sampler, bool, str]:
    """Return the sampler in the format to run in, whether all passes are alike, why not bfloat16.

    Args:
        model, plan: the model and how it is run.
        images: (N, C, H, W), of which one is tried.
        precision: see `Engine`. ``"auto"`` keeps a model without noise in fp32: attacks stop right
            behind the decision boundary, where rounding would overturn answers.

    Raises:
        InputError: the precision is unknown.
    """
    fault = ""
    short = resolve_precision(precision, images.device) == "bf16"
    if short and len(images):
        fault = plan.try_bf16(model.module, images[:1].expand(2, *images.shape[1:]))
    sampler = model.sampler_for(plan, torch.bfloat16 if short and not fault else torch.float32)
    alike = len(images) > 0 and not plan.random and not sampler.size
    if alike:
        alike = torch.equal(noisy_images(model.inputs, images[:1], seed=0, s=0), images[:1])
    if alike and precision == "auto" and sampler.dtype == torch.bfloat16:
        sampler, fault = model.sampler_for(plan, torch.float32), "the model has no noise"
    return sampler, alike, fault
