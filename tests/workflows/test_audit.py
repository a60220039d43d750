import json

import torch
from torch import nn

from smoothinfer.cli import main


def test_audit_writes_one_page_and_exits_by_what_it_found(tiny_run, tmp_path, capsys):
    arguments = ["audit", str(tiny_run), "--data", "digits", "--quick", "--radius", "0.1"]
    status = main([*arguments, "--limit", "20", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "audit.json").read_text())
    assert status == int(bool(record["fired"]))
    assert [finding["number"] for finding in record["findings"]] == list(range(1, 14))
    assert record["findings"][12]["state"] == "clear"  # the card names the training images
    page = (tmp_path / "audit.html").read_text()
    assert "://" not in page.replace("http://www.w3.org/2000/svg", "")  # the name of SVG elements
    assert record["verdict"] in (tmp_path / "audit.md").read_text()
    assert "silent success" in capsys.readouterr().out


def test_audit_takes_any_model(tmp_path):
    arguments = ["audit", "tests.conftest:fresh_net", "--data", "digits", "--quick"]
    status = main([*arguments, "--limit", "30", "--out", str(tmp_path)])
    record = json.loads((tmp_path / "audit.json").read_text())
    assert status == int(bool(record["fired"]))
    assert record["findings"][12]["state"] == "skipped"


def test_an_audit_of_few_images_is_not_complete_and_exits_with_0(tmp_path, capsys):
    arguments = ["audit", "tests.conftest:fresh_net", "--data", "digits", "--quick"]
    assert main([*arguments, "--limit", "8", "--out", str(tmp_path)]) == 0
    record = json.loads((tmp_path / "audit.json").read_text())
    assert record["verdict"].startswith("Not complete: 8 images are too few to tell by check ")
    assert any(finding["too_few"] for finding in record["findings"])
    assert 'class="note"><strong>' in (tmp_path / "audit.html").read_text()
    printed = " ".join(capsys.readouterr().out.split())
    assert "needs at least 10 images" in printed
    assert "Not complete: 8 images are too few to tell" in printed


def blind():
    """A factory of a model without gradients."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    net.forward = torch.no_grad()(net.forward)
    return net


def broken():
    raise ZeroDivisionError


def test_an_audit_of_a_model_without_gradients_fires_and_a_crash_is_no_alarm(tmp_path, capsys):
    arguments = ["--data", "digits", "--quick", "--limit", "40", "--out", str(tmp_path)]
    assert main(["audit", "tests.workflows.test_audit:blind", *arguments]) == 1
    record = json.loads((tmp_path / "audit.json").read_text())
    assert record["fired"] == [1]
    assert record["findings"][4]["state"] == "skipped"
    assert main(["audit", "tests.workflows.test_audit:broken", *arguments]) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
