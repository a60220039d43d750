"""Other people's tools, where they are installed: ``pip install smoothinfer[peers]``."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from importlib.metadata import version

from torch import Tensor, nn


def installed(name: str) -> bool:
    """Say whether the package ``name`` can be imported."""
    return importlib.util.find_spec(name) is not None


def smoothing_peers(
    module: nn.Module, images: Tensor, samples: int, sigma: float, batch: int
) -> dict[str, Callable[[], object]]:
    """Return prediction smoothing by each installed peer."""
    found: dict[str, Callable[[], object]] = {}
    if installed("art"):
        from art.estimators.certification.randomized_smoothing import PyTorchRandomizedSmoothing

        classifier = PyTorchRandomizedSmoothing(
            model=module,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(images.shape[1:]),
            nb_classes=10,
            sample_size=samples,
            scale=sigma,
            clip_values=(0.0, 1.0),
            device_type="gpu" if images.is_cuda else "cpu",
        )
        pixels = images.cpu().numpy()
        found["ART"] = lambda: classifier.predict(pixels, batch_size=batch)
    return found


def pgd_peers(
    module: nn.Module, images: Tensor, labels: Tensor, radius: float, steps: int
) -> dict[str, Callable[[], object]]:
    """Return PGD by each installed peer."""
    found: dict[str, Callable[[], object]] = {}
    if installed("art"):
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            module, nn.CrossEntropyLoss(), tuple(images.shape[1:]), 10, clip_values=(0.0, 1.0)
        )
        attack = ProjectedGradientDescentPyTorch(
            classifier,
            eps=radius,
            eps_step=radius / 4,
            max_iter=steps,
            num_random_init=1,
            batch_size=len(images),
            verbose=False,
        )
        pixels, classes = images.cpu().numpy(), labels.cpu().numpy()
        found["ART"] = lambda: attack.generate(pixels, classes)
    if installed("foolbox"):
        import foolbox

        wrapped = foolbox.PyTorchModel(module, bounds=(0, 1), device=images.device)
        linf = foolbox.attacks.LinfPGD(abs_stepsize=radius / 4, steps=steps)
        found["Foolbox"] = lambda: linf(wrapped, images, labels, epsilons=radius)
    if installed("torchattacks"):
        import torchattacks

        torch_pgd = torchattacks.PGD(module, eps=radius, alpha=radius / 4, steps=steps)
        found["torchattacks"] = lambda: torch_pgd(images, labels)
    return found


def versions() -> dict[str, str]:
    """Return the versions of the installed peers."""
    names = {"art": "adversarial-robustness-toolbox"}
    known = ("art", "foolbox", "torchattacks", "pyautoattack")
    found = [name for name in known if installed(name)]
    return {name: version(names.get(name, name)) for name in found}


def silent() -> None:
    """Keep peers from drawing progress bars into the table."""
    os.environ["TQDM_DISABLE"] = "1"


def auto_attack(
    module: nn.Module, radius: float, protocol: str
) -> Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]:
    """Return AutoAttack: (images, labels, batch) -> adversarial images, and its answers to them.

    An image is broken in its eyes where the answer differs from the label.

    Args:
        module: from images to logits.
        radius: of the L-infinity ball.
        protocol: ``"standard"`` or ``"rand"``.
    """
    from pyautoattack import AutoAttack

    attack = AutoAttack(module, norm="Linf", eps=radius, version=protocol, device="cpu", seed=0)
    return lambda images, labels, batch: attack.run_standard_evaluation(
        images, labels, batch_size=batch
    )
