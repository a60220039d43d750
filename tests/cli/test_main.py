import json

import pytest
import torch
from torch import nn

import smoothinfer as si
from smoothinfer.attacks.eot import is_random
from smoothinfer.cli import main
from smoothinfer.config.components import Component
from smoothinfer.workflows.evaluate import attack_of
from tests.test_training import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    recipe = folder / "tiny.yaml"
    recipe.write_text(json.dumps(TINY))  # JSON is YAML
    arguments = ["train", str(recipe), "--data", "digits", "--out", str(folder / "run")]
    assert main([*arguments, "--set", "epochs=1", "attack.steps=1"]) == 0
    return folder / "run"


def test_train_keeps_the_resolved_recipe(run):
    assert (run / "best.safetensors").exists()
    recipe = json.loads((run / "best.json").read_text())["recipe"]
    assert recipe["epochs"] == 1
    assert recipe["attack"] == {"name": "pgd", "steps": 1}


def test_evaluate_leaves_a_summary(run, tmp_path, capsys):
    arguments = ["evaluate", str(run), "--data", "digits", "--attack", "pgd", "epgd(draws=2)"]
    arguments += ["--radius", "8/255", "--sigma", "0", "0.06", "--rule", "prediction", "soft"]
    arguments += ["--samples", "1", "8", "--limit", "20", "--seed", "0", "--out", str(tmp_path)]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert "What the vote of" in (tmp_path / "table.md").read_text()
    assert len(summary["settings"]) == 2 * 2 * 2 * 2
    assert all(entry["clean"]["images"] == 20 for entry in summary["settings"])
    assert json.loads((tmp_path / "settings.json").read_text())["limit"] == 20
    assert "epgd(draws=2)" in capsys.readouterr().out
    assert main(arguments) == 0  # the second time everything is there already


def test_validation_images_are_those_that_training_held_out(run, tmp_path):
    arguments = ["evaluate", str(run), "--data", "digits", "--attack", "none", "--samples", "1"]
    assert main([*arguments, "--split", "validation", "--out", str(tmp_path)]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["data"]["images"] == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "no-model", "--data", "digits", "--out", "x"], "no model 'no-model'"),
        (["train", "nothing.yaml", "--data", "digits", "--out", "x"], "digits/cni-w.yaml"),
        (["train", "digits/cni-w.yaml", "--data", "./nowhere", "--out", "x"], "no such folder"),
        (
            ["train", "digits/cni-w.yaml", "--data", "digits", "--out", "x", "--set", "epoch=1"],
            "epochs",
        ),
        (
            ["train", "digits/cni-w.yaml", "--data", "digits", "--out", "x", "--set", "loss=trade"],
            "adversarial",
        ),
    ],
)
def test_errors_name_the_thing_and_the_choices(arguments, said, capsys, tmp_path, monkeypatch):
    assert main(arguments) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert said in told
    assert "Traceback" not in told


def test_bad_settings_of_evaluate_are_refused(run, tmp_path, capsys):
    base = ["evaluate", str(run), "--data", "digits", "--out", str(tmp_path)]
    for more, said in (
        (["--attack", "pdg"], "pgd"),
        (["--attack", "pgd(step=3)"], "steps"),
        (["--rule", "majority"], "prediction"),
        (["--radius", "big"], "radius"),
        (["--sigma", "-1"], "sigma"),
        (["--split", "tset"], "test"),
    ):
        assert main(base + more) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_models_lists_the_shipped_ones(capsys):
    assert main(["models"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in si.list_models() or ["there are no models"])


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["demo"]])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as status:
        main([*command, "--help"])
    assert status.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_attack_keeps_the_examples_and_a_sheet(run, tmp_path):
    source = f"transfer(source='{run}', steps=2, sigma=0.1)"
    arguments = ["attack", str(run), "--data", "digits", "--attack", "pgd(steps=2)", source]
    arguments += ["--radius", "0.1", "--samples", "2", "--limit", "150", "--out", str(tmp_path)]
    assert main(arguments) == 0
    found = sorted((tmp_path / "examples").glob("*.safetensors"))
    assert len(found) == 2
    assert all(path.with_suffix(".png").stat().st_size > 1000 for path in found)
    for path in found:
        kept = si.load_examples(path)
        assert kept["images"].shape == kept["adversarial"].shape == (150, 1, 8, 8)
        assert (kept["adversarial"] - kept["images"]).abs().max() <= 0.1 + 1e-6
        assert torch.equal(kept["labels"], si.load_data("digits", "test", 150).labels)
    assert not (tmp_path / "examples" / "parts").exists()
    shards = len(list((tmp_path / "rows").iterdir()))
    assert main(arguments) == 0  # nothing to do, and nothing lost
    assert len(list((tmp_path / "rows").iterdir())) == shards  # the source is known again
    costs = json.loads((tmp_path / "costs.json").read_text())["seconds an image"]
    assert set(costs) == {"pgd(steps=2)", source}
    assert all(seconds > 0 for seconds in costs.values())
    assert all(len(si.load_examples(path)["images"]) == 150 for path in found)
    # Rows of another radius between: the files hold the examples of the last command.
    for radius in ("0.2", "0.1"):
        changed = [radius if word == "0.1" else word for word in arguments]
        assert main(changed) == 0
        far = [si.load_examples(path) for path in found]
        assert all((f["adversarial"] - f["images"]).abs().max() <= float(radius) + 1e-6 for f in far)
        assert all((f["adversarial"] - f["images"]).abs().max() > float(radius) / 2.1 for f in far)
    entry = json.loads((tmp_path / "summary.json").read_text())["settings"][0]["attacked"]
    assert (entry["forwards"], entry["backwards"]) == (2.0, 2.0)
    assert entry["every_draw"] <= entry["per_draw"] <= 1


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ("transfer", "transfer needs a source"),
        ("transfer(source='nobody')", "no model 'nobody'"),
        ("transfer(source='nobody', noise=2)", "noise of a source is True or False"),
        ("transfer(source='nobody', noise=False, sigma=0.1)", "leaves no sigma to give"),
    ],
)
def test_a_transfer_names_its_source(attack, said, run, tmp_path, capsys):
    arguments = ["evaluate", str(run), "--data", "digits", "--attack", attack]
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err


def test_the_source_of_a_transfer_can_be_rid_of_its_noise(run):
    images = si.load_data("digits", "test", 8).images
    for options, random in (("", True), (", noise=False", False), (", sigma=0.1", True)):
        attack = attack_of(Component.of(f"transfer(source='{run}', steps=2{options})"))
        source = attack.keywords["source"].eval()
        assert is_random(source, images) == random


def test_audit_writes_one_page_and_exits_by_what_it_found(run, tmp_path, capsys):
    arguments = ["audit", str(run), "--data", "digits", "--quick", "--radius", "0.1"]
    status = main([*arguments, "--limit", "20", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "audit.json").read_text())
    assert status == int(bool(record["fired"]))
    assert [finding["number"] for finding in record["findings"]] == list(range(1, 14))
    assert record["findings"][12]["state"] == "clear"  # the card tells the training images
    page = (tmp_path / "audit.html").read_text()
    assert "http" not in page.replace("http-equiv", "")
    assert record["verdict"] in (tmp_path / "audit.md").read_text()
    assert "silent success" in capsys.readouterr().out


def test_audit_takes_any_model(tmp_path):
    torch.manual_seed(0)
    arguments = ["audit", "tests.test_evaluate:fresh_net", "--data", "digits", "--quick"]
    status = main([*arguments, "--limit", "30", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "audit.json").read_text())
    assert status == int(bool(record["fired"]))
    assert record["findings"][12]["state"] == "skipped"


def blind():
    """A factory of a model without gradients."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    net.forward = torch.no_grad()(net.forward)
    return net


def broken():
    raise ZeroDivisionError


def test_an_audit_of_a_model_without_gradients_fires_and_a_crash_is_no_alarm(tmp_path, capsys):
    given = ["--data", "digits", "--quick", "--limit", "40", "--out", str(tmp_path)]
    assert main(["audit", "tests.test_cli:blind", *given]) == 1
    record = json.loads((tmp_path / "audit.json").read_text())
    assert record["fired"] == [1]
    assert record["findings"][4]["state"] == "skipped"
    assert main(["audit", "tests.test_cli:broken", *given]) == 3
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_calibrate_chooses_on_held_out_images_and_warns_at_the_edge(run, tmp_path, capsys):
    arguments = ["calibrate", str(run), "--data", "digits", "--attack", "pgd(steps=2)"]
    arguments += ["--radius", "0.1", "--samples", "8", "--limit", "60", "--out", str(tmp_path)]
    assert main([*arguments, "--sigma", "0", "0.1"]) == 0
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert found["images"] == 60
    assert found["sigma"] in (0, 0.1)
    edge = any("of the grid" in warning for warning in found["warnings"])
    assert edge == (found["sigma"] == 0.1)
    assert f"sigma {found['sigma']:g}" in capsys.readouterr().out
    for change, said in (
        (["--sigma", "0.1"], "at least two sigmas"),
        (["--sigma", "0", "0.1", "--attack", "none"], "an attack"),
        (["--sigma", "0", "0.1", "--samples", "1", "8"], "one number of passes"),
    ):
        assert main([*arguments, *change]) == 2
        assert said in capsys.readouterr().err
