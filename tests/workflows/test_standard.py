"""``smoothinfer standard`` prints and writes three numbers for each attack, and a verdict."""

from smoothinfer.cli import main
from smoothinfer.runtime.files import read_json


def test_a_random_model_is_judged(tiny_run, tmp_path, capsys):
    words = ["standard", str(tiny_run), "--data", "digits", "--limit", "12", "--budget", "quick"]
    assert main([*words, "--radius", "0.1", "--samples", "32", "--out", str(tmp_path)]) == 0
    found = read_json(tmp_path / "standing.json")
    assert found["random"]
    assert set(found["standings"]) == {
        *("none", "standard(budget='quick')", "one_draw(steps=20)"),
        *(f"pgd(steps=20, draws={draws})" for draws in (1, 4, 16)),
    }
    under = found["standings"]["standard(budget='quick')"]
    assert found["vote"] == under["vote"]
    assert found["mean"]["value"] <= under["mean"]["value"]
    told = " ".join(capsys.readouterr().out.split())
    assert " ".join(found["verdict"].split()) in told
    assert "in the worst case over all attacks" in found["verdict"]
    assert found["verdict"] in (tmp_path / "standing.md").read_text()


def test_a_model_without_noise_has_one_number(tmp_path):
    words = ["standard", "tests.conftest:line", "--data", "digits", "--limit", "12"]
    assert main([*words, "--budget", "quick", "--radius", "0.1", "--out", str(tmp_path)]) == 0
    found = read_json(tmp_path / "standing.json")
    assert not found["random"]
    assert set(found["standings"]) == {"none", "standard(budget='quick')"}
    assert "no noise" in found["verdict"]
    table = (tmp_path / "standing.md").read_text()
    assert "| attack | accuracy |" in table
    assert "in a row" not in table
    assert "+0.0" not in table
    assert "12 images of digits, attacks within 0.1 in L-infinity, votes of 10" in table


def test_votes_of_fewer_than_ten_passes_are_refused_before_any_work(tmp_path, capsys):
    words = ["standard", "tests.conftest:noisy_line", "--data", "digits", "--samples", "9"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "samples must be at least 10, not 9" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
