"""``smoothinfer harden``: from a state dict that somebody saved to a run, read as data."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import smoothinfer as si
from smoothinfer.cli import main
from smoothinfer.recipes import load_recipe
from smoothinfer.runtime.files import write_json
from smoothinfer.state_dicts import load_state_dict_into
from smoothinfer.training.history import History
from smoothinfer.workflows.run_notes import ending


def network(classes=10, channels=1):
    torch.manual_seed(3)
    return si.smallnet(classes, channels, width=4)


WAYS = {
    "bare": lambda state: state,
    "nested": lambda state: {"state_dict": state, "epoch": 3},
    "model": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled": lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_state_dict_is_found_however_it_was_saved(way, tmp_path):
    torch.save(WAYS[way](network().state_dict()), tmp_path / "a.pth")
    fresh = si.smallnet(10, 1, width=4)
    load_state_dict_into(fresh, tmp_path / "a.pth")
    for key, tensor in network().state_dict().items():
        assert torch.equal(fresh.state_dict()[key], tensor)


def test_a_network_within_another_takes_the_weights_of_the_inner_one(tmp_path):
    save_file(network().state_dict(), tmp_path / "a.safetensors")
    outer = si.LogitsOf(si.smallnet(10, 1, width=4))
    load_state_dict_into(outer, tmp_path / "a.safetensors")
    assert torch.equal(outer.network[0].weight, network()[0].weight)


class Harmful:
    def __reduce__(self):
        return (open, ("harm.txt", "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: network(classes=7).state_dict(), "is (7,), the network's (10,)"),
        (lambda: nn.Linear(3, 2).state_dict(), "lacks 0.weight"),
        (lambda: [1, 2], "holds a list"),
        (lambda: {"epoch": 3}, "holds no tensors"),
        (lambda: {"state_dict": Harmful()}, "cannot be read"),
        (network, "save the state dict alone"),
    ],
)
def test_what_does_not_fit_is_named(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content(), "a.pth")
    with pytest.raises(si.InputError) as raised:
        load_state_dict_into(si.smallnet(10, 1, width=4), "a.pth")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "harm.txt").exists()


LINE = ["--model", "smallnet", "--recipe", "digits/cni-w.yaml", "--data", "digits"]
SMALL = ["--scale", "smoke", "--set", "model.width=4", "precision=fp32"]


def test_a_network_is_hardened_from_its_weights(tmp_path, capsys):
    torch.save(network().state_dict(), tmp_path / "mine.pth")
    out = tmp_path / "run"
    line = ["harden", str(tmp_path / "mine.pth"), *LINE, *SMALL, "lr=0.0", "--out", str(out)]
    line += ["--limit", "1000"]
    assert main(line) == 0
    trained = si.load(out)
    for key, tensor in network().state_dict().items():
        if "running" not in key and "batches" not in key:  # lr 0: the weights stay
            assert torch.equal(trained.module[1].state_dict()[key], tensor)
    printed = capsys.readouterr().out
    # No more images than at this scale, whatever the limit; so few steps are not judged.
    assert "at scale smoke: 192 images of digits train, 64 are held out" in printed
    assert "than the start" not in printed
    assert printed.count("in L-infinity") == 1  # the ball of "attacked"
    assert main(line) == 0  # it resumes
    torch.save({key: value + 1 for key, value in network().state_dict().items()}, line[1])
    assert main(line) == 2
    assert "init_from" in capsys.readouterr().err


@pytest.mark.parametrize("scale", ["short", "smoke", "paper"])
def test_the_rate_is_that_of_the_help_in_every_scale(scale, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr("smoothinfer.workflows.harden.train.run", asked.append)
    line = ["harden", "mine.pth", "--model", "smallnet", "--data", "digits", "--out", "run"]
    torch.save(network().state_dict(), "mine.pth")
    main([*line, "--scale", scale])
    assert "lr=0.05" in asked[0].set


def told(tmp_path, start, *epochs, images=1000):
    """Return the last lines of a training from weights, with these accuracies under attack."""
    recipe = load_recipe("digits/cni-w.yaml", ["init_from=mine.pth", "lr=0.05"])
    write_json(tmp_path / "start.json", {"clean": start, "attacked": start, "images": images})
    history = History()
    for number, value in enumerate(epochs, start=1):
        row = {"epoch": float(number), "clean": value, "attacked": value}
        history.finish_epoch(row, "attacked", chance=0.1)
    return ending(tmp_path, history, recipe)


def test_a_training_that_did_harm_says_so_and_what_to_try(tmp_path):
    kept, harm, collapse = told(tmp_path, 0.95, 0.907, 0.1, 0.1)
    assert "number 1 of 3 epochs was kept" in kept
    assert "worse than the start (clean 95.0 %, attacked 95.0 %)" in harm
    assert "--set lr=0.005" in harm
    assert "in 2 epochs, from number 2 on, accuracy under attack has lost half" in collapse
    assert len(told(tmp_path, 0.4, 0.3, 0.5)) == 1
    _, luck = told(tmp_path, 0.95, 0.907, images=30)
    assert "no better than the start" in luck
    assert "harm" not in luck


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.pth", *LINE], "no such file: none.pth"),
        (["mine.pth", "--model", "timm:", *LINE[2:]], "names no network"),
        (["mine.pth", "--model", "resnet18", *LINE[2:]], "'resnet18': write timm:resnet18 for"),
    ],
)
def test_what_cannot_be_hardened_is_refused(words, message, tmp_path, monkeypatch, capsys):
    torch.save(network().state_dict(), tmp_path / "mine.pth")
    (tmp_path / "data").mkdir()
    recipes = si.__path__[0].replace("src/smoothinfer", "recipes")
    monkeypatch.chdir(tmp_path)
    words = [word.replace("digits/cni-w.yaml", f"{recipes}/digits/cni-w.yaml") for word in words]
    assert main(["harden", *words, *SMALL[:2], "--out", "run"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "best.safetensors").exists()
