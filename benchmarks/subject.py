"""What is measured: networks and noise whose cost does not depend on their weights."""

from __future__ import annotations

from torch import nn

import smoothinfer as si
from smoothinfer.backbones import from_timm

FLOP = 81.6e6  # of one ResNet-20 forward on a 32x32 image
RADIUS, SIGMA = 8 / 255, 0.06


def network() -> nn.Module:
    """Return a plain ResNet-20 for CIFAR-10, in eval mode."""
    with si.isolated_rng(0):
        layers = si.Normalize([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]), si.resnet20()
    return nn.Sequential(*layers).eval()


def backbone(kind: str) -> nn.Module:
    """Return a ViT-tiny (``"vit"``) or a ResNet-18 (``"resnet"``) of transformers, for 224x224.

    ``"timm"`` is timm's ResNet-18. Their weights are random: nothing is fetched.
    """
    with si.isolated_rng(0):
        if kind == "timm":
            return from_timm("resnet18", num_classes=10).eval()
        import transformers

        if kind == "vit":
            sizes = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 3}
            config = transformers.ViTConfig(num_labels=10, **sizes)
            return si.LogitsOf(transformers.ViTForImageClassification(config)).eval()
        sizes = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512]}
        config = transformers.ResNetConfig(num_labels=10, layer_type="basic", **sizes)
        return si.LogitsOf(transformers.ResNetForImageClassification(config)).eval()


def cni() -> si.NoisyModel:
    """Return a ResNet-20 with CNI weight noise, in eval mode."""
    return si.NoisyModel(network(), weights=si.CNI(rank=5)).eval()
