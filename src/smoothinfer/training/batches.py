"""The batches of a training: drawn by named streams, gathered where the network runs."""

import torch
from torch import Tensor

from smoothinfer.data import ImageData
from smoothinfer.numerics.randomness import derive_seed, stream
from smoothinfer.training.augmentation import Shifts, draw_shifts
from smoothinfer.training.options import TrainingOptions

Batch = tuple[Tensor, Tensor, Shifts]  # pixels (N, C, H, W) as uint8, labels (N,), shifts


class Batches:
    """The batch of every step, a function of the step's number alone.

    Order and shifts are drawn on the CPU, so that every device trains on the same images. The
    images lie on ``device`` where they take less than half of its free memory.

    Args:
        data: the training images.
        options: of the loop.
        steps_per_epoch: batches of an epoch.
        device: where batches are wanted.
        part: this process and the number of processes, each of which gets its share.

    >>> from smoothinfer.data import load_data
    >>> options = TrainingOptions(batch_size=8)
    >>> batches = Batches(load_data("digits", "train"), options, 10, torch.device("cpu"))
    >>> pixels, labels, _ = batches.batch(step=3)
    >>> tuple(pixels.shape), tuple(labels.shape)
    ((8, 1, 8, 8), (8,))
    """

    def __init__(
        self,
        data: ImageData,
        options: TrainingOptions,
        steps_per_epoch: int,
        device: torch.device,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.options, self.steps_per_epoch, self.device = options, steps_per_epoch, device
        home = device if _fits(data.pixels, device) else torch.device("cpu")
        self.pixels, self.labels = data.pixels.to(home), data.labels.to(home)
        self.mine = slice(part[0], None, part[1])
        self._order, self._epoch = torch.empty(0), -1

    def batch(self, step: int) -> Batch:
        """Return this process's share of the batch of ``step``, counted from 0."""
        size = self.options.batch_size
        epoch, at = divmod(step, self.steps_per_epoch)
        if self._epoch != epoch:
            generator = stream(self.options.seed, "order", epoch)
            self._order = torch.randperm(len(self.pixels), generator=generator)
            self._epoch = epoch
        key = derive_seed(self.options.seed, "step", step)
        shifts = draw_shifts(size, self.options.crop, stream(key, "augment"))
        rows = _send(self._order[at * size :][:size][self.mine], self.pixels.device)
        pixels, labels = self.pixels[rows], self.labels[rows]
        moved = Shifts(*(_send(each[self.mine], self.device) for each in shifts))
        return _send(pixels, self.device), _send(labels, self.device), moved


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return ``tensor`` on ``device``, without waiting for a GPU."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _fits(pixels: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    return pixels.nbytes < torch.cuda.mem_get_info(device)[0] // 2
