"""Our attacks beside other tools' on a model without noise: ``python -m benchmarks.attacks``."""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import smoothinfer as si
from benchmarks.clock import machine
from benchmarks.peers import auto_attack, installed, silent, versions
from smoothinfer.numerics.statistics import Interval, proportion
from smoothinfer.runtime.processes import tune_malloc

ANY = si.L2(1e5)  # no bound: the nearest example is asked for
Run = Callable[[Tensor, Tensor], Tensor]


class Attacks:
    """Each attack's tools: ``{attack: {tool: (images, labels) -> adversarial images}}``."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.radius, self.step = options, options.radius, options.radius / 4
        model = si.load(options.model)
        assert isinstance(model, si.NoisyModel)
        if model.inputs is not None or model.weight_noises:
            raise SystemExit(f"{options.model} is random: other tools cannot attack that fairly")
        self.model, self.plain = model, model.module
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    def ours(self, name: str, ball: si.Ball, **settings: Any) -> Run:
        """Return an attack of this library."""
        attack = partial(si.ATTACKS[name], **settings)

        def run(images: Tensor, labels: Tensor) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return attack(self.model, images, labels, ball, generator=generator)

        return run

    def pgd(self) -> dict[str, Run]:
        """PGD-20, steps of a quarter of the radius, from the image itself: no tool is lucky."""
        ball, settings = si.Linf(self.radius), {"steps": 20, "step_size": self.step}
        found = {
            name: self.ours("pgd", ball, random_start=False, precision=precision, **settings)
            for name, precision in (("smoothinfer", "fp32"), ("smoothinfer, bfloat16", "bf16"))
        }
        if installed("art"):
            found["ART"] = self._art_pgd()
        if installed("foolbox"):
            settings = {"abs_stepsize": self.step, "steps": 20, "random_start": False}
            found["Foolbox"] = self._foolbox("LinfPGD", self.radius, **settings)
        if installed("torchattacks"):
            import torchattacks

            attack = torchattacks.PGD(
                self.plain, eps=self.radius, alpha=self.step, steps=20, random_start=False
            )
            found["torchattacks"] = lambda images, labels: attack(images, labels)
        return found

    def _art_pgd(self) -> Run:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        loss = nn.CrossEntropyLoss()
        wrapped = PyTorchClassifier(
            self.plain, loss, self.options.shape, self.options.classes, clip_values=(0.0, 1.0)
        )
        settings = {"eps": self.radius, "eps_step": self.step, "max_iter": 20, "num_random_init": 0}
        attack = ProjectedGradientDescentPyTorch(wrapped, **settings, batch_size=512, verbose=False)
        return lambda images, labels: torch.from_numpy(
            attack.generate(images.numpy(), labels.numpy())
        )

    def _foolbox(self, name: str, radius: float | None, **settings: Any) -> Run:
        import foolbox

        wrapped = foolbox.PyTorchModel(self.plain, bounds=(0, 1), device="cpu")
        attack = getattr(foolbox.attacks, name)(**settings)
        return lambda images, labels: attack(wrapped, images, labels, epsilons=radius)[1]

    def apgd_ce(self) -> dict[str, Run]:
        """APGD on the cross-entropy, 100 steps, one start."""
        return self._apgd("apgd", "ce")

    def apgd_dlr(self) -> dict[str, Run]:
        """APGD on DLR, 100 steps, one start."""
        return self._apgd("apgd_dlr", "dlr")

    def _apgd(self, name: str, loss: str) -> dict[str, Run]:
        found = {"smoothinfer": self.ours(name, si.Linf(self.radius), steps=100)}
        if installed("pyautoattack"):
            from pyautoattack.autopgd_base import APGDAttack

            theirs = APGDAttack(self.plain, eps=self.radius, loss=loss, device="cpu")
            found["AutoAttack"] = theirs.perturb
        return found

    def square(self) -> dict[str, Run]:
        """Square, at the number of queries that the options give."""
        queries = self.options.queries
        found = {"smoothinfer": self.ours("square", si.Linf(self.radius), queries=queries)}
        if installed("pyautoattack"):
            from pyautoattack.square import SquareAttack

            theirs = SquareAttack(self.plain, n_queries=queries, eps=self.radius, device="cpu")
            found["AutoAttack"] = theirs.perturb
        return found

    def ddn(self) -> dict[str, Run]:
        """DDN, 100 steps; the nearest example in L2."""
        found = {"smoothinfer": self.ours("ddn", ANY, steps=100)}
        if installed("foolbox"):
            found["Foolbox"] = self._foolbox("DDNAttack", None, init_epsilon=1.0, steps=100)
        return found

    def cw(self) -> dict[str, Run]:
        """Carlini and Wagner, 5 searches of 100 steps; the nearest example in L2."""
        found = {"smoothinfer": self.ours("cw", ANY, steps=100, searches=5)}
        if installed("foolbox"):
            settings = {"binary_search_steps": 5, "steps": 100, "stepsize": 0.01}
            found["Foolbox"] = self._foolbox("L2CarliniWagnerAttack", None, **settings)
        return found

    def nattack(self) -> dict[str, Run]:
        """NAttack, 400 steps of 300 queries, beside PGD-20 and APGD on the same images."""
        ball = si.Linf(self.radius)
        return {
            "NAttack": self.ours("nattack", ball, steps=400),
            "PGD-20": self.ours("pgd", ball, steps=20, step_size=self.step, precision="fp32"),
            "APGD": self.ours("apgd", ball, steps=100),
        }

    def worst_case(self) -> dict[str, Run]:
        """The whole protocol: ``standard``, and AutoAttack's standard version."""
        found = {"smoothinfer": self.ours("standard", si.Linf(self.radius))}
        if installed("pyautoattack"):
            theirs = auto_attack(self.plain, self.radius, "standard")
            batch = self.options.batch
            found["AutoAttack"] = lambda images, labels: theirs(images, labels, batch)[0]
        return found

    def measure(self, run: Run, images: Tensor, labels: Tensor) -> dict[str, Any]:
        """Return what an attack leaves right, how far it went, and the seconds it took."""
        parts = zip(images.split(self.options.batch), labels.split(self.options.batch), strict=True)
        begun = time.perf_counter()
        attacked = torch.cat([run(*part).detach() for part in parts])
        seconds = time.perf_counter() - begun
        with torch.no_grad():
            clean, answers = (
                torch.cat([self.plain(part).argmax(1) for part in parts.split(128)])
                for parts in (images, attacked)
            )
        right = answers == labels
        fooled = (clean == labels) & ~right
        norms = (attacked - images).flatten(1).norm(dim=1)[fooled]
        return {
            "right": proportion(int(right.sum()), len(images)).as_dict(),
            "median L2": float(norms.median()) if len(norms) else None,
            "seconds": seconds,
        }


SECTIONS = ("pgd", "apgd_ce", "apgd_dlr", "square", "ddn", "cw", "nattack", "worst_case")


def table(found: dict[str, Any]) -> str:
    """Return everything as Markdown."""
    lines = [
        "# Attacks beside other tools'",
        "",
        f"Model: {found['model']}. Machine: {found['machine']}. Peers: {found['peers']}.",
        "Accuracy after the attack in per cent, with a 95 % interval over images; the median L2",
        "distance of images that the attack turned.",
        "",
        "| attack | tool | images | right | median L2 | seconds |",
        "| :--- | :--- | ---: | ---: | ---: | ---: |",
    ]
    for section in found["sections"].values():
        for tool, row in section["tools"].items():
            right = Interval(**row["right"])
            far = "" if row["median L2"] is None else f"{row['median L2']:.4f}"
            cells = (
                section["description"],
                tool,
                right.images,
                right,
                far,
                f"{row['seconds']:.0f}",
            )
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure, print, and write ``attacks.md`` and ``attacks.json``; sections add up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="adversarial-resnet20-cifar10")
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--sections", nargs="*", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--radius", type=float, default=8 / 255, help="of the L-infinity ball")
    parser.add_argument("--queries", type=int, default=1000, help="for square")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    silent()
    tune_malloc()
    data = si.load_data(options.data, "test", options.images, first=True)
    options.shape, options.classes = tuple(data.images.shape[1:]), len(data.classes)
    attacks = Attacks(options)
    path = options.out / "attacks.json"
    found = json.loads(path.read_text()) if path.exists() else {"sections": {}}
    found |= {"model": options.model, "machine": machine("cpu"), "peers": versions()}
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.sections:
        make: Callable[[], dict[str, Run]] = getattr(attacks, name)
        section: dict[str, Any] = {
            "description": (make.__doc__ or "").strip().rstrip("."),
            "tools": {},
        }
        for tool, run in make().items():
            section["tools"][tool] = attacks.measure(run, data.images, data.labels)
            print(name, tool, section["tools"][tool], flush=True)
        found["sections"][name] = section
        path.write_text(json.dumps(found, indent=1) + "\n")
        (options.out / "attacks.md").write_text(table(found))


if __name__ == "__main__":
    main()
