"""Networks: the CIFAR ResNets, a small net for digits, and normalisation as a first layer."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smoothinfer.errors import InputError
from smoothinfer.types import Images, Logits


class Normalize(nn.Module):
    """(images - mean) / std per channel, inside the model: outside, pixels are in [0, 1].

    Args:
        mean: one value per channel, in pixel units.
        std: one positive value per channel, in pixel units.

    Raises:
        InputError: the lengths differ, a std is not positive, or an image has another number of
            channels.

    >>> Normalize([0.5], [0.25])(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or not all(value > 0 for value in std):
            raise InputError(f"mean {mean} and std {std} must have equal length and std > 0")
        self.register_buffer(
            "mean", torch.tensor(list(mean), dtype=torch.float32).view(1, -1, 1, 1)
        )
        self.register_buffer("std", torch.tensor(list(std), dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Images) -> Tensor:
        if images.shape[1] != self.mean.shape[1]:
            raise InputError(
                f"images have {images.shape[1]} channels, but the model takes {self.mean.shape[1]}"
            )
        return (images - self.mean) / self.std


def _check_sizes(**sizes: int) -> None:
    """Refuse sizes below 1, and above 1,000 for numbers of layers."""
    for name, size in sizes.items():
        most = 1000 if name in ("blocks", "depth") else 2**31
        if not 1 <= size <= most:
            raise InputError(f"{name} of a network must be in 1..{most}, not {size}")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (1x1 convolution where the shape changes)."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut.append(nn.Conv2d(inside, outside, 1, stride, bias=False))
            self.shortcut.append(nn.BatchNorm2d(outside))

    def forward(self, features: Tensor) -> Tensor:
        inner = F.relu(self.bn1(self.conv1(features)), inplace=True)
        return F.relu(self.bn2(self.conv2(inner)) + self.shortcut(features), inplace=True)


class ResNet(nn.Module):
    """The CIFAR residual network of He et al. with ``6 * blocks + 2`` layers.

    Args:
        blocks: basic blocks in each of the three stages (3 gives ResNet-20).
        classes: number of classes K.
        channels: channels of an image.
        width: channels of the first stage; the others have two and four times as many.

    Source: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, 2015,
    arXiv 1512.03385, section 4.2; shortcuts are 1x1 convolutions, as in Nemcovsky et al.

    >>> sum(p.numel() for p in ResNet(blocks=3).parameters())
    272474
    """

    def __init__(
        self, blocks: int = 3, classes: int = 10, channels: int = 3, width: int = 16
    ) -> None:
        super().__init__()
        _check_sizes(blocks=blocks, classes=classes, channels=channels, width=width)
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = [width, width, 2 * width, 4 * width]
        self.stages = nn.Sequential(
            *(_stage(widths[i], widths[i + 1], 1 if i == 0 else 2, blocks) for i in range(3))
        )
        self.linear = nn.Linear(widths[-1], classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight)

    def forward(self, images: Images) -> Logits:
        features = F.relu(self.bn1(self.conv1(images)), inplace=True)
        features = self.stages(features)
        return self.linear(features.mean((2, 3)))


def _stage(inside: int, outside: int, stride: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inside, outside, stride)
    return nn.Sequential(first, *(BasicBlock(outside, outside, 1) for _ in range(blocks - 1)))


def resnet20(classes: int = 10, channels: int = 3, width: int = 16) -> ResNet:
    """Return the 20-layer CIFAR ResNet, 272,474 parameters for 10 classes."""
    return ResNet(3, classes, channels, width)


class PreActBlock(nn.Module):
    """Normalisation and ReLU before each of two 3x3 convolutions, and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.shortcut = (
            None if inside == outside else nn.Conv2d(inside, outside, 1, stride, bias=False)
        )

    def forward(self, features: Tensor) -> Tensor:
        active = F.relu(self.bn1(features))
        inner = F.relu(self.bn2(self.conv1(active)), inplace=True)
        # Where the shape changes, the shortcut starts after the activation.
        direct = features if self.shortcut is None else self.shortcut(active)
        return self.conv2(inner) + direct


class WideResNet(nn.Module):
    """The wide residual network of Zagoruyko and Komodakis for 32x32 images.

    Args:
        depth: 6 n + 4 layers.
        widen: factor of the widths 16, 32, 64.
        classes: number of classes K.
        channels: channels of an image.

    Raises:
        InputError: the depth is not 6 n + 4.

    Source: Zagoruyko, Komodakis 2016, arXiv 1605.07146; laid out as in TRADES' WRN-34-10, of
    46,160,474 parameters.

    >>> WideResNet(depth=10, widen=1)(torch.rand(1, 3, 32, 32)).shape
    torch.Size([1, 10])
    """

    def __init__(
        self, depth: int = 34, widen: int = 10, classes: int = 10, channels: int = 3
    ) -> None:
        super().__init__()
        _check_sizes(depth=depth, widen=widen, classes=classes, channels=channels)
        if depth < 10 or (depth - 4) % 6:
            raise InputError(
                f"the depth of a wide ResNet is 6 n + 4, such as 28 or 34, not {depth}"
            )
        widths = [16, 16 * widen, 32 * widen, 64 * widen]
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        blocks = (depth - 4) // 6
        self.stages = nn.Sequential(
            *(
                nn.Sequential(
                    PreActBlock(widths[i], widths[i + 1], 1 if i == 0 else 2),
                    *(PreActBlock(widths[i + 1], widths[i + 1], 1) for _ in range(blocks - 1)),
                )
                for i in range(3)
            )
        )
        self.bn = nn.BatchNorm2d(widths[-1])
        self.linear = nn.Linear(widths[-1], classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Images) -> Logits:
        features = F.relu(self.bn(self.stages(self.conv1(images))), inplace=True)
        return self.linear(features.mean((2, 3)))


def wrn34_10(classes: int = 10, channels: int = 3, widen: int = 10, depth: int = 34) -> WideResNet:
    """Return WRN-34-10, 46,160,474 parameters for 10 classes."""
    return WideResNet(depth, widen, classes, channels)


def smallnet(classes: int = 10, channels: int = 1, width: int = 16) -> nn.Sequential:
    """Return a net of three convolutions for images of about 8x8 pixels, such as the digits.

    Raises:
        InputError: a size is not positive.
    """
    _check_sizes(classes=classes, channels=channels, width=width)

    def block(inside: int, outside: int) -> list[nn.Module]:
        conv = nn.Conv2d(inside, outside, 3, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(outside), nn.ReLU(inplace=True)]

    return nn.Sequential(
        *block(channels, width),
        *block(width, 2 * width),
        nn.MaxPool2d(2),
        *block(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


class LogitsOf(nn.Module):
    """The logits of a network that returns more: an object, as in transformers, a dict, a tuple.

    Args:
        network: a module from (N, C, H, W) images to something that holds logits, (N, K).
        part: where they are: the name of an attribute, a key, or the place in a tuple.

    Raises:
        InputError: there is no such part.

    >>> from types import SimpleNamespace
    >>> class WithLoss(nn.Linear):
    ...     def forward(self, images):
    ...         return SimpleNamespace(logits=super().forward(images.flatten(1)), loss=None)
    >>> LogitsOf(WithLoss(4, 3))(torch.rand(2, 1, 2, 2)).shape
    torch.Size([2, 3])
    """

    def __init__(self, network: nn.Module, part: str | int = "logits") -> None:
        super().__init__()
        self.network, self.part = network, part

    def forward(self, images: Images) -> Logits:
        answer, part = self.network(images), self.part
        try:
            held = isinstance(part, str) and hasattr(answer, part)
            logits: Logits = getattr(answer, str(part)) if held else answer[part]
        except (KeyError, IndexError, TypeError) as error:
            shown = f"{type(answer).__name__} that the network returns"
            raise InputError(f"there is no {part!r} in the {shown}") from error
        return logits


MODELS: dict[str, Callable[..., nn.Module]] = {
    "resnet20": resnet20,
    "resnet32": partial(ResNet, 5),
    "resnet56": partial(ResNet, 9),
    "wrn34_10": wrn34_10,
    "smallnet": smallnet,
}
