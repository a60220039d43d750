"""Exported files answer as the model does; an exporter that fixes the noise is caught."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.exporting import exporter
from smoothinfer.exporting.checking import check_pass, check_vote
from smoothinfer.exporting.noisy_pass import NoisyPass, hidden_noise

pytest.importorskip("onnxscript", reason="the extra 'export' is not installed")
ort = pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
SHAPE = (3, 8, 8)
ENDINGS = pytest.mark.parametrize("ending", [".onnx", ".pt2"])


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        si.Normalize([0.5] * 3, [0.25] * 3),
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    ).eval()


def noisy():
    where = {"1": si.CNI(rank=2, diagonal=0.05), "6": si.PNI("channel")}
    return si.NoisyModel(network(), inputs=si.Gaussian(0.2), weights=where).eval()


def images(count=4):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for ending in (".onnx", ".pt2"):
        si.export(noisy(), folder / f"net{ending}", samples=20, shape=SHAPE)
    return folder


def loaded(path: Path):
    """The file as a user would load it: inputs by name -> outputs."""
    if path.suffix == ".onnx":
        session = ort.InferenceSession(str(path))

        def call(**inputs):
            found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
            return [torch.from_numpy(each) for each in found]

        return call
    program = torch.export.load(path).module()

    def run_program(**inputs):
        found = program(*inputs.values())
        return [found] if isinstance(found, torch.Tensor) else list(found)

    return run_program


@ENDINGS
@pytest.mark.parametrize("count", [1, 3, 7])
def test_a_pass_is_the_models_pass_of_the_same_seed(files, ending, count):
    one, shown = NoisyPass(noisy(), SHAPE), images(count)
    expected = list(si.passes(noisy(), shown, 3, seed=5, precision="fp32"))
    single = loaded(files / f"net.pass{ending}")
    for s, logits in enumerate(expected):
        (found,) = single(images=shown, noise=one.noise_of(5, s))
        assert torch.allclose(found, logits, atol=1e-5)


@ENDINGS
def test_the_passes_of_a_seed_give_the_vote_of_predict(files, ending):
    one, shown = NoisyPass(noisy(), SHAPE), images(6)
    single, counts = loaded(files / f"net.pass{ending}"), torch.zeros(6, 4, dtype=torch.int64)
    for s in range(25):
        (logits,) = single(images=shown, noise=one.noise_of(3, s))
        counts += nn.functional.one_hot(logits.argmax(1), 4)
    smooth = si.SmoothedClassifier(noisy(), 25, seed=3, precision="fp32")
    assert torch.equal(counts, smooth.predict(shown).counts)


@ENDINGS
@pytest.mark.parametrize("count", [1, 5])
def test_a_vote_draws_afresh_and_counts(files, ending, count):
    shown, cast = images(count), loaded(files / f"net{ending}")
    labels, counts, shares = cast(images=shown)
    assert counts.shape == shares.shape == (count, 4)
    assert (counts.sum(1) == 20).all()
    assert torch.equal(labels, counts.argmax(1))
    assert torch.allclose(shares.sum(1), torch.ones(count), atol=1e-5)
    assert not torch.equal(shares, cast(images=shown)[2])


def test_the_json_tells_what_the_files_take(files):
    about = json.loads((files / "net.pt2.json").read_text())
    assert about["files"] == {"vote": "net.pt2", "pass": "net.pass.pt2"}
    assert about["noise"] == NoisyPass(noisy(), SHAPE).length
    assert about["shape"] == list(SHAPE)
    assert about["checks"]["pass"]["other_votes"] == 0
    assert about["random"]


class FixedNoise(nn.Module):
    """A random module whose noise an exporter takes for a constant: it is not torch's."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, shown):
        noise = torch.from_numpy(np.random.default_rng().normal(size=SHAPE).astype(np.float32))
        return self.net(shown + noise)


@ENDINGS
def test_noise_that_became_a_constant_is_caught(tmp_path, ending):
    with pytest.raises(si.InputError, match=r"constants|standard errors"):
        si.export(FixedNoise().eval(), tmp_path / f"net{ending}", shape=SHAPE)
    assert not list(tmp_path.iterdir())


def left_on():
    net = nn.Sequential(network(), nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 4)).eval()
    net[2].train()
    return net


def test_dropout_left_on_is_drawn_inside(tmp_path):
    found = si.export(left_on(), tmp_path / "net.pt2", samples=30, shape=SHAPE)
    assert found["noise"] == 0
    assert found["files"] == {"vote": "net.pt2"}
    assert "not smoothinfer's" in found["no pass"]
    assert 0.01 < found["checks"]["vote"]["spread"] < 9


def test_dropout_that_the_exporter_of_onnx_takes_out_is_caught(tmp_path):
    with pytest.raises(si.InputError, match="constants"):
        si.export(left_on(), tmp_path / "net.onnx", samples=30, shape=SHAPE)
    assert not list(tmp_path.iterdir())


@ENDINGS
def test_a_network_without_noise_votes_as_it_answers(tmp_path, ending):
    found = si.export(network(), tmp_path / f"net{ending}", samples=3, images=images())
    assert found["checks"]["vote"]["spread"] is None
    labels, counts, _ = loaded(tmp_path / f"net{ending}")(images=images())
    assert torch.equal(labels, network()(images()).argmax(1))
    assert set(counts.flatten().tolist()) == {0, 3}


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, shown):
        return self.net(shown) if shown.mean() > 0.5 else -self.net(shown)


@ENDINGS
def test_what_an_exporter_does_not_take_is_said_in_one_line(tmp_path, ending):
    with pytest.raises(si.InputError, match="does not take the model") as caught:
        si.export(Branching().eval(), tmp_path / f"net{ending}", shape=SHAPE)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def votes_with(draw):
    """A run of files whose votes are ``draw(number of the call, images)``."""

    def fake(path, calls):
        found = []
        for number, call in enumerate(calls):
            logits = draw(number, call["images"])
            counts = nn.functional.one_hot(logits.argmax(2), 4).sum(0)
            found.append([counts.argmax(1), counts, logits.softmax(2).mean(0)])
        return found

    return fake


def own(seed, shown, samples=64):
    return torch.stack(list(si.passes(noisy(), shown, samples, seed, precision="fp32")))


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda number, shown: own(7, shown), "constants"),
        (lambda number, shown: own(number, shown)[:1].expand(64, -1, -1), "all its passes"),
        (lambda number, shown: own(number, shown) + torch.tensor([2.0, 0, 0, 0]), "standard err"),
    ],
    ids=["the same in every vote", "the same in every pass", "another model"],
)
def test_wrong_votes_are_refused(draw, message):
    with pytest.raises(si.InputError, match=message):
        check_vote(Path("x"), votes_with(draw), noisy(), 64, images())


def test_right_votes_pass():
    """Twenty times: the checks refuse one of ten million right files."""
    for repeat in range(20):
        check_vote(
            Path("x"),
            votes_with(lambda n, shown, at=100 * repeat: own(at + n + 1, shown)),
            noisy(),
            64,
            images(),
        )


def test_a_changed_pass_is_refused():
    one = NoisyPass(noisy(), SHAPE)

    def changed(path, calls):
        return [[one(call["images"], call["noise"]) * 1.01] for call in calls]

    with torch.no_grad(), pytest.raises(si.InputError, match="under the same noise"):
        check_pass(Path("x"), changed, one, noisy(), images())


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: network(), "not smoothinfer's"),
        (lambda: si.NoisyModel(network(), inputs=si.Uniform(0.1)).eval(), "Uniform noise at"),
        (lambda: si.NoisyModel(network(), weights=si.Laplace(0.1)).eval(), "Laplace noise on 1."),
        (
            lambda: si.NoisyModel(network(), activations=si.Gaussian(0.1), shape=SHAPE).eval(),
            "activations",
        ),
    ],
)
def test_noise_that_cannot_be_an_argument_is_named(model, reason):
    assert reason in hidden_noise(model())


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("net.pth", {"shape": SHAPE}, "must end in .onnx or .pt2"),
        ("net.onnx", {"shape": SHAPE, "format": "torch"}, "must end in .pt2"),
        ("net.onnx", {"shape": SHAPE, "format": "tflite"}, "unknown format"),
        (".", {"shape": SHAPE, "format": "onnx"}, "must end in .onnx"),
        ("net.onnx", {}, "shape"),
        ("net.onnx", {"shape": (3, 0, 8)}, "shape must be at least 1"),
        ("net.onnx", {"shape": SHAPE, "samples": 0}, "samples must be at least 1"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(tmp_path, path, options, message):
    with pytest.raises(si.InputError, match=message):
        si.export(noisy(), tmp_path / path, **options)
    assert not list(tmp_path.iterdir())


def test_the_command(tmp_path, capsys):
    line = ["export", "tests.conftest:noisy_line", "--shape", "1", "8", "8", "--samples", "12"]
    assert main([*line, "--out", str(tmp_path / "net.onnx")]) == 0
    assert "net.pass.onnx: one pass" in capsys.readouterr().out
    about = json.loads((tmp_path / "net.onnx.json").read_text())
    assert about["model"] == "tests.conftest:noisy_line"
    assert main([*line, "--out", str(tmp_path / "net.txt")]) == 2
    assert "must end in" in capsys.readouterr().err


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(si.InputError, match=r"smoothinfer\[export\]"):
        exporter.export(noisy(), tmp_path / "net.onnx", shape=SHAPE)


def test_a_rare_event_in_the_noise_is_no_fault_of_the_file():
    """One pass in 160 differs: votes of 16 are often the same, and their means lie apart."""
    usual, other = torch.eye(4)[:2].log().clamp(-9)

    class Rare(nn.Module):
        def forward(self, shown):
            rare = (torch.rand(()) < 1 / 160).float()
            return (rare * other + (1 - rare) * usual).expand(len(shown), 4)

    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)

        def draw(number, shown, generator=generator):
            rare = (torch.rand(16, 1, 1, generator=generator) < 1 / 160).float()
            return (rare * other + (1 - rare) * usual).expand(16, len(shown), 4)

        check_vote(Path("x"), votes_with(draw), Rare().eval(), 16, images())
    with pytest.raises(si.InputError, match="standard err"):
        check_vote(
            Path("x"),
            votes_with(lambda n, shown: usual.roll(2).expand(16, len(shown), 4)),
            Rare().eval(),
            16,
            images(),
        )


def test_the_reason_of_a_failed_export_is_told(capfd, tmp_path):
    mixture = si.DEFENCES["mixture"](network(), network()).eval()
    with pytest.raises(si.InputError, match=r"does not take the model: .*data-dependent") as caught:
        si.export(mixture, tmp_path / "a.onnx", shape=SHAPE)
    assert str(caught.value).isprintable()
    assert capfd.readouterr() == ("", "")
