"""Other tools' adversarial examples: any format, right or refused, judged like an attack's own."""

import zipfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main

SHAPE = (3, 4, 5)


@pytest.fixture
def world():
    """A linear network, clean images that it gets right, and examples that it gets wrong."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(60, 4)).eval()
    images = torch.rand(200, *SHAPE)
    labels = net(images).argmax(1)
    ball = si.Linf(0.1)
    adversarial = si.ATTACKS["fgsm"](net, images, labels, ball)
    return net, images, labels, adversarial, ball


def write(folder, kind, adversarial, labels, images):
    file = folder / f"adv.{kind}"
    last = adversarial.permute(0, 2, 3, 1).contiguous()
    if kind == "npz":
        np.savez(file, x_adv=adversarial.numpy(), y=labels.numpy(), x_test=images.numpy())
    elif kind == "npy":
        np.save(file, last.numpy())
    elif kind == "safetensors":
        save_file({"adversarial": adversarial, "labels": labels, "images": images}, file)
    elif kind == "pt":
        torch.save({"adv_complete": adversarial, "note": 3}, file)
    else:
        torch.save(adversarial, file)
    return str(file)


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors", "pt", "pth"])
def test_every_format_gives_the_rows_of_the_attack_that_made_them(world, tmp_path, kind):
    net, images, labels, adversarial, ball = world
    file = write(tmp_path, kind, adversarial, labels, images)
    attacks = {"own": si.ATTACKS["fgsm"], "given": si.GivenExamples.read(file)}
    rows = si.evaluate(net, (images, labels), attack=attacks, ball=ball)
    table = rows.to_pandas().set_index("attack")
    for column in ("predicted", "correct", "distance", "image"):
        assert table.loc["own", column].tolist() == table.loc["given", column].tolist()
    assert table.loc["given", "forwards"].max() == 0


def test_whole_pixels_are_divided_by_255(world):
    _, images, labels, adversarial, _ = world
    given = si.GivenExamples((255 * adversarial).round().to(torch.uint8))
    given.fit(images, labels)
    assert (given.adversarial - adversarial).abs().max() <= 0.5 / 255 + 1e-6


def test_examples_outside_of_the_ball_are_moved_back_and_told(world):
    net, images, labels, _, _ = world
    given = si.GivenExamples(torch.zeros_like(images))
    with pytest.warns(UserWarning, match="projected back"):
        rows = si.evaluate(net, (images, labels), attack={"far": given}, ball=si.Linf(0.1))
    far = rows.to_pandas().query("attack == 'far'")
    assert far["distance"].max() <= 0.1 + 1e-6


def bad(world):
    _, images, labels, adversarial, _ = world
    yield "number", si.GivenExamples, (adversarial[:-1],), "199 examples for 200 images"
    yield "labels", si.GivenExamples, (adversarial, labels.roll(1)), "other labels"
    yield "clean", si.GivenExamples, (adversarial, labels, images.flip(0)), "other images"
    yield "shape", si.GivenExamples, (adversarial[..., :-1],), "of shape"


@pytest.mark.parametrize("fault", ["number", "labels", "clean", "shape"])
def test_examples_of_other_images_are_refused_before_any_work(world, fault):
    net, images, labels, _, ball = world
    make, arguments, message = {name: rest for name, *rest in bad(world)}[fault]
    with pytest.raises(si.InputError, match=message):
        si.evaluate(net, (images, labels), attack={"given": make(*arguments)}, ball=ball)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.full((2, *SHAPE), 1.5), "must lie in"),
        (torch.full((2, *SHAPE), float("nan")), "must lie in"),
        (torch.zeros(2, *SHAPE, dtype=torch.int64), "floats in"),
        (torch.zeros(3), "must be images"),
        (torch.zeros(0, *SHAPE), "must be images"),
    ],
)
def test_no_pictures_are_refused(pixels, message):
    with pytest.raises(si.InputError, match=message):
        si.GivenExamples(pixels)


class Harmful:
    def __reduce__(self):
        return (open, ("harm.txt", "w"))


def test_code_in_a_file_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"adversarial": Harmful()}, "a.pt")
    np.save("a.npy", np.array([Harmful()]), allow_pickle=True)
    np.savez("a.npz", x_adv=np.array([Harmful()]))
    for file in ("a.pt", "a.npy", "a.npz"):
        with pytest.raises(si.InputError):
            si.GivenExamples.read(file)
    assert not (tmp_path / "harm.txt").exists()


def test_files_of_other_kinds_and_damaged_ones_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "a.pt").write_bytes(b"\x80\x02")
    torch.save([1, 2], tmp_path / "b.pt")
    np.savez(tmp_path / "c.npz", first=np.zeros(3), second=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "d.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(2**29))
    for name in ("none.pt", "a.txt", "a.npz", "a.safetensors", "a.pt", "b.pt", "c.npz", "d.pt"):
        with pytest.raises(si.InputError, match=name):
            si.GivenExamples.read(str(tmp_path / name))


def factory():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


def test_the_command_line_judges_a_file_of_examples(tmp_path, capsys):
    data = si.load_data("digits", "test")
    torch.save(data[:64].images.flip(3), tmp_path / "adv.pt")
    line = ["evaluate", f"{__name__}:factory", "--data", "digits", "--samples", "1", "--radius"]
    line += ["1", "--out", str(tmp_path / "out"), "--examples", str(tmp_path / "adv.pt")]
    assert main(line) == 2
    assert "--limit 64 --first" in capsys.readouterr().err
    assert main([*line, "--limit", "64", "--first"]) == 0
    (attack,) = set(si_rows(tmp_path / "out")["attack"].to_pylist()) - {"none"}
    assert "adv.pt" in attack


def si_rows(folder):
    return pq.read_table(folder / "rows")


@pytest.mark.parametrize("labels", [[0.0, 0.4], [0.0, float("nan")], [0.0, 1e30]])
def test_labels_that_are_no_whole_numbers_are_refused(labels):
    with pytest.raises(si.InputError, match="no whole numbers"):
        si.GivenExamples(torch.rand(2, 1, 4, 4), torch.tensor(labels))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32])
def test_whole_labels_are_taken_in_any_format(dtype):
    found = si.GivenExamples(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]).to(dtype))
    assert found.labels.tolist() == [0, 1]
