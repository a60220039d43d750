"""Whether a model's answer to an image depends on the other images of its batch.

Batch normalisation by the batch's own statistics does so, attention over the axis of the batch, or
a running average that moves at every call. Then no figure holds but for this order of the images.
"""

import torch
from torch import nn

from smoothinfer.attacks.checks import is_random
from smoothinfer.attacks.gate import plain_images
from smoothinfer.engine.members import NoisyNetwork, member_of
from smoothinfer.numerics.permutations import permutation_test
from smoothinfer.numerics.randomness import isolated_rng, stream
from smoothinfer.runtime.foreign import logits_of
from smoothinfer.runtime.modes import device_of
from smoothinfer.types import Images, Logits

_IMAGES = 8
_ROWS = [5, 2, 0]  # another order, another number, other neighbours
_KEPT = slice(1, None, 2)  # places that keep their images while the others change
# Other kernels run for batches of other sizes: on CPUs ResNet-20 then differs by 2 units, where a
# unit is the rounding of the largest logit in the format of the weights; Winograd's differ more.
_UNITS, _FLOAT32_UNITS = 4.0, 128.0
_NUDGES = 8.0  # times what the rounding of the images alone changes
_DRAWS = 16
_CERTAIN = 1e-3
OTHERS = "an image's answer depends on the other images of its batch"
PLACE = "an image's answer depends on its place in the batch, or on the size of the batch"


def depends_on_batch(model: nn.Module, images: Images, passes: int = 1) -> str:
    """Return how an image's answer depends on its batch, ``""`` if it does not.

    A few images are shown together, then some of them in another order. A pass of a random model is
    held fixed. Where its noise depends on the place in the batch, as that of left-on dropout
    does, images keep their places while others change. Where no pass can be repeated, the
    distributions of answers are compared. Differences count beyond the rounding of the format.

    Args:
        model: any module from images to logits, in eval mode.
        images: (N, C, H, W), at least one; the first 8 are used, or random ones added.
        passes: number of passes of a random model that are compared.

    Raises:
        InputError: the model returns no logits for these images.

    >>> images = torch.rand(8, 1, 2, 2)
    >>> depends_on_batch(nn.Flatten(), images)
    ''
    >>> class Centred(nn.Module):
    ...     def forward(self, images):
    ...         return (images - images.mean(0)).flatten(1)
    >>> depends_on_batch(Centred().eval(), images).split(" (")[0]
    "an image's answer depends on the other images of its batch"
    """
    with torch.inference_mode(False), torch.no_grad():
        batch = _filled(plain_images(model, images[:_IMAGES]).to(device_of(model, images)))
        found = (_dependence(model, batch, s) for s in range(passes))
        return next((each for each in found if each), "")


def rounding_of(model: nn.Module, logits: Logits) -> float:
    """Return the relative rounding error of the coarsest format in which ``model`` computes.

    >>> rounding_of(nn.Linear(2, 2).half(), torch.zeros(1, 2)) == 2**-10
    True
    """
    tensors = (*model.parameters(), *model.buffers(), logits)
    formats = {each.dtype for each in tensors if each.is_floating_point()}
    kind = logits.device.type
    if torch.is_autocast_enabled(kind):
        formats.add(torch.get_autocast_dtype(kind))
    if kind == "cuda" and (
        torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    ):
        formats.add(torch.float16)  # TF32 keeps as many bits
    return max(torch.finfo(each).eps for each in formats)


def _filled(images: Images) -> Images:
    """Return 8 images: those given, then random ones."""
    shape = (_IMAGES - len(images), *images.shape[1:])
    return torch.cat([images, torch.rand(shape, generator=stream(0, "neighbours")).to(images)])


def _dependence(model: nn.Module, batch: Images, s: int) -> str:
    """Compare pass ``s`` of a batch with some of its images in another order."""
    run = member_of(model, 0, s)
    whole = run(batch)
    if not whole.isfinite().all():
        return ""  # whoever votes refuses the model
    try:
        part = run(batch[_ROWS])
    except Exception as error:  # a user's forward may fail in any way
        message = " ".join(str(error).split())[:200]
        return f"the model takes {_IMAGES} images at once, not 3: {type(error).__name__}: {message}"
    apart, tolerance = _apart(part, whole[_ROWS]), _tolerance(model, whole)
    if apart <= tolerance:
        return ""
    if _apart(run(batch), whole) > tolerance:  # it keeps a state, or a generator of its own
        return _compare_draws(model, batch, forget=_DRAWS)
    nudged = run((batch * (1 + torch.finfo(batch.dtype).eps)).clamp(0, 1))
    if apart <= _NUDGES * _apart(nudged, whole):
        return ""
    beside = _apart(run(_exchanged(batch))[_KEPT], whole[_KEPT])
    if not is_random(model.module if isinstance(model, NoisyNetwork) else model, batch):
        return _message(apart) if beside > tolerance else PLACE
    if beside <= tolerance:  # seen together, in the same places, they get the same noise
        return ""
    return _message(beside) if _draws_by_shape(model, batch) else _compare_draws(model, batch)


def _tolerance(model: nn.Module, logits: Logits) -> float:
    return max(_UNITS * rounding_of(model, logits), _FLOAT32_UNITS * torch.finfo(torch.float32).eps)


def _apart(one: Logits, two: Logits) -> float:
    """Return the largest difference of two answers as a share of the image's largest logit."""
    apart = (one - two).abs().amax(1) / two.abs().amax(1).clamp_min(1e-30)
    return float(torch.nan_to_num(apart, nan=torch.inf).amax())


def _exchanged(batch: Images) -> Images:
    """Return ``batch`` with other images in all places but those of ``_KEPT``."""
    other = 1 - batch
    other[_KEPT] = batch[_KEPT]
    return other


def _message(apart: float) -> str:
    return f"{OTHERS} (logits change by up to {100 * apart:.2g} % of the largest)"


def _draws_by_shape(model: nn.Module, batch: Images) -> bool:
    """Say whether other images leave the generator behind in the same state."""
    after = []
    for images in (batch, _exchanged(batch)):
        with isolated_rng(0):
            logits_of(model, images)
            after.append(torch.rand(4, device=batch.device))
    return torch.equal(*after)


def _compare_draws(model: nn.Module, batch: Images, forget: int = 0) -> str:
    """Compare the distributions of answers beside other images; a state first has to settle."""
    with isolated_rng(0):
        one, two = (
            torch.stack([logits_of(model, images)[_KEPT] for _ in range(forget + _DRAWS)])[forget:]
            for images in (batch, _exchanged(batch))
        )
    if 2 * min(permutation_test(one, two)) >= _CERTAIN:
        return ""
    return _message(_apart(two.mean(0), one.mean(0)))
