"""The speed of this library side by side with a naive loop and other tools."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict

import torch
from torch import Tensor, nn

import smoothinfer as si
from benchmarks import clock, naive, peers, steps
from benchmarks.subject import FLOP, RADIUS, SIGMA, backbone, cni, network
from smoothinfer.engine.passes import Engine
from smoothinfer.training.compiling import COMPILE

Cases = dict[str, Callable[[], object]]


class Benchmarks:
    """The sections of the table; each returns its cases and the images that a case handles."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.device = options, options.device
        generator = torch.Generator().manual_seed(0)
        self.images = torch.rand(options.images, 3, 32, 32, generator=generator).to(self.device)
        self.labels = torch.randint(10, (options.images,), generator=generator).to(self.device)
        self.plain = network().to(self.device)
        self.noisy = naive.with_weight_noise(network()).to(self.device).eval()
        self.by_inputs = si.NoisyModel(network(), inputs=si.Gaussian(SIGMA)).to(self.device)
        self.by_weights = cni().to(self.device)

    def ours(self, model: nn.Module, images: Tensor, samples: int) -> Callable[[], object]:
        """Return prediction smoothing by this library."""
        smooth = si.SmoothedClassifier(model, samples, precision=self.options.precision)
        return lambda: smooth.predict(images)

    def input_noise(self) -> tuple[Cases, float]:
        """Prediction smoothing, noise at the inputs."""
        n, images = self.options.samples, self.images
        cases: Cases = {
            "naive loop": lambda: naive.predict(self.plain, images, n, SIGMA, 256),
            "Cohen's loop": lambda: naive.predict_each(self.plain, images, n, SIGMA),
            **peers.smoothing_peers(self.plain, images, n, SIGMA, 256),
            "smoothinfer": self.ours(self.by_inputs, images, n),
        }
        return cases, len(images) * n * FLOP

    def weight_noise(self) -> tuple[Cases, float]:
        """Prediction smoothing, CNI at the weights."""
        n, images = self.options.samples, self.images
        cases: Cases = {
            "naive loop": lambda: naive.predict(self.noisy, images, n, 0.0, 256),
            "smoothinfer": self.ours(self.by_weights, images, n),
        }
        return cases, len(images) * n * FLOP

    def one_image(self) -> tuple[Cases, float]:
        """One image, 512 passes, CNI at the weights."""
        image = self.images[:1]
        cases: Cases = {
            "naive loop": lambda: naive.predict(self.noisy, image, 512, 0.0, 256),
            "smoothinfer": self.ours(self.by_weights, image, 512),
        }
        return cases, 512 * FLOP

    def one_image_input_noise(self) -> tuple[Cases, float]:
        """One image, 512 passes, noise at the inputs."""
        image = self.images[:1]
        cases: Cases = {
            "naive loop": lambda: naive.predict(self.plain, image, 512, SIGMA, 256),
            "Cohen's loop": lambda: naive.predict_each(self.plain, image, 512, SIGMA),
            "smoothinfer": self.ours(self.by_inputs, image, 512),
        }
        return cases, 512 * FLOP

    def one_image_vit(self) -> tuple[Cases, float]:
        """One image of 224x224, 64 passes of a ViT-tiny of transformers, noise at the inputs."""
        return self._backbone("vit", 2.16e9)

    def one_image_resnet18(self) -> tuple[Cases, float]:
        """One image of 224x224, 64 passes of a ResNet-18 of transformers, noise at the inputs."""
        return self._backbone("resnet", 3.64e9)

    def one_image_timm(self) -> tuple[Cases, float]:
        """One image of 224x224, 64 passes of a ResNet-18 of timm, noise at the inputs."""
        return self._backbone("timm", 3.64e9)

    def _backbone(self, kind: str, flop: float) -> tuple[Cases, float]:
        module, image = backbone(kind).to(self.device), torch.rand(1, 3, 224, 224).to(self.device)
        noisy = si.NoisyModel(module, inputs=si.Gaussian(SIGMA))

        def by_hand(precision: torch.dtype) -> Callable[[], object]:
            def vote() -> Tensor:
                with torch.inference_mode(), torch.autocast(self.device, precision):
                    noise = torch.randn(64, *image.shape[1:], device=image.device)
                    return module(image + SIGMA * noise).argmax(1).bincount(minlength=10)

            return vote

        cases: Cases = {
            "a batch of 64 by hand, fp32": by_hand(torch.float32),
            "a batch of 64 by hand, bfloat16": by_hand(torch.bfloat16),
            "smoothinfer": self.ours(noisy, image, 64),
        }
        return cases, 64 * flop

    def pgd(self) -> tuple[Cases, float]:
        """PGD-7 on the plain network."""
        images, labels = self.images, self.labels
        ours = si.NoisyModel(self.plain)
        ball, precision = si.Linf(RADIUS), self.options.precision
        cases: Cases = {
            "naive loop": lambda: naive.pgd(self.plain, images, labels, RADIUS, 7),
            **peers.pgd_peers(self.plain, images, labels, RADIUS, 7),
            "smoothinfer": lambda: si.pgd(ours, images, labels, ball, steps=7, precision=precision),
        }
        return cases, len(images) * 7 * 2 * FLOP

    def training(self) -> tuple[Cases, float]:
        """One step of adversarial training, PGD-7, w = 0.5, CNI at the weights."""
        images, labels = self.images[:128], self.labels[:128]
        noisy = naive.with_weight_noise(network()).to(self.device)
        optimizer = torch.optim.SGD(noisy.parameters(), 0.1, momentum=0.9)

        def naive_step() -> None:
            attacked = naive.pgd(noisy.eval(), images, labels, RADIUS, 7)
            noisy.train().zero_grad()
            for batch in (images, attacked):
                (0.5 * nn.functional.cross_entropy(noisy(batch), labels)).backward()
            optimizer.step()

        cases: Cases = {"naive loop": naive_step, "smoothinfer": self.step(128, "off")}
        return cases, len(images) * steps.FORWARDS * FLOP

    def step(self, batch: int, compile: str) -> Callable[[], object]:
        """Return a step of training by this library, of CNI-W ResNet-20."""
        return steps.training_step(cni(), batch, compile, self.options.precision)

    def compiled_votes(self) -> tuple[Cases, float]:
        """Passes with CNI at the weights, eager and by ``torch.compile``."""
        n, precision = self.options.samples, self.options.precision

        def votes(compiled: bool) -> Callable[[], object]:
            engine = Engine(self.by_weights, self.images, 0, precision=precision, compile=compiled)
            return lambda: [block.argmax(2) for block in engine.blocks(self.images, 0, n)]

        return {"eager": votes(False), "compiled": votes(True)}, len(self.images) * n * FLOP

    def compiled_training(self, batch: int = 128) -> tuple[Cases, float]:
        """One step of adversarial training, in each way that it can run."""
        ways = [how for how, (_, graph) in COMPILE.items() if self.images.is_cuda or not graph]
        cases: Cases = {how: self.step(batch, how) for how in ways}
        return cases, batch * steps.FORWARDS * FLOP

    def training_256(self) -> tuple[Cases, float]:
        """The same with 256 images."""
        return self.compiled_training(256)

    def training_1024(self) -> tuple[Cases, float]:
        """The same with 1,024 images."""
        return self.compiled_training(1024)

    def measure_yardstick(self, rates: dict[str, float]) -> None:
        """Measure the matrix rates once more; the fastest counts, and shares with it are least."""
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            rate = clock.matrix_rate(dtype, self.device, self.options.repeats)
            rates[name] = max(rate, rates.get(name, 0.0))

    def run(self) -> dict[str, object]:
        """Measure every section."""
        repeats = self.options.repeats
        rates: dict[str, float] = {}
        sections = {}
        for name in self.options.sections or SECTIONS:
            self.measure_yardstick(rates)
            make: Callable[[], tuple[Cases, float]] = getattr(self, name)
            cases, flop = make()
            timings = clock.compare(cases, repeats)
            sections[name] = {
                "description": (make.__doc__ or "").strip().rstrip("."),
                "flop": flop,
                "cases": {case: asdict(timing) for case, timing in timings.items()},
            }
            print(table(sections[name], rates), flush=True)
        self.measure_yardstick(rates)
        model = self.by_weights
        return {
            "machine": clock.machine(self.device),
            "peers": peers.versions(),
            "options": {k: v for k, v in vars(self.options).items() if k != "out"},
            "engine": repr(Engine(model, self.images, 0, precision=self.options.precision)),
            "matrix_rate": rates,
            "sections": sections,
        }


SECTIONS = (
    "input_noise",
    "weight_noise",
    "one_image",
    "one_image_input_noise",
    "pgd",
    "training",
)

# Only where asked for: they need transformers, or timm with its torchvision.
BACKBONES = ("one_image_vit", "one_image_resnet18", "one_image_timm")

# Only where asked for: the compiler takes minutes on a CPU.
COMPILED = ("compiled_votes", "compiled_training", "training_256", "training_1024")


def table(section: dict[str, object], rates: dict[str, float]) -> str:
    """Return a section as Markdown."""
    cases: dict[str, dict[str, float]] = section["cases"]  # type: ignore[assignment]
    flop = float(section["flop"])  # type: ignore[arg-type]
    first = next(iter(cases.values()))["median"]
    best = max(rates.values())
    lines = [
        f"### {section['description']}",
        "",
        "| | seconds | fastest - slowest | times the first's speed | share of matrix rate |",
        "| :--- | ---: | ---: | ---: | ---: |",
    ]
    for name, case in cases.items():
        spread = f"{case['fastest']:.3g} - {case['slowest']:.3g}"
        share = 100 * flop / case["median"] / best
        ratio = first / case["median"]
        lines.append(f"| {name} | {case['median']:.3g} | {spread} | {ratio:.2f} | {share:.0f} % |")
    return "\n".join([*lines, ""])


def report(found: dict[str, object]) -> str:
    """Return everything as Markdown."""
    rates: dict[str, float] = found["matrix_rate"]  # type: ignore[assignment]
    sections: dict[str, dict[str, object]] = found["sections"]  # type: ignore[assignment]
    yardstick = ", ".join(f"{name} {rate / 1e9:,.1f} GFLOP/s" for name, rate in rates.items())
    lines = [
        "# Speed",
        "",
        f"Machine: {found['machine']}. Peers: {found['peers']}. Options: {found['options']}.",
        f"Engine: {found['engine']}.",
        f"Yardstick, a 2048-cubed matrix product, timed before each section: {yardstick} at best;",
        "shares are of the faster one. Seconds are medians; cases take turns within a section.",
        "",
    ]
    return "\n".join([*lines, *(table(section, rates) for section in sections.values())])
