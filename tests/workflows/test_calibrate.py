import json

from smoothinfer.cli import main


def test_calibrate_chooses_on_held_out_images_and_warns_at_the_edge(tiny_run, tmp_path, capsys):
    arguments = ["calibrate", str(tiny_run), "--data", "digits", "--attack", "pgd(steps=2)"]
    arguments += ["--radius", "0.1", "--samples", "8", "--limit", "60", "--out", str(tmp_path)]
    assert main([*arguments, "--sigma", "0", "0.1"]) == 0
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert found["images"] == 60
    assert found["sigma"] in (0, 0.1)
    edge = any("of the grid" in warning for warning in found["warnings"])
    assert edge == (found["sigma"] == 0.1)
    assert f"sigma {found['sigma']:g}" in capsys.readouterr().out
    for change, message in (
        (["--sigma", "0.1"], "at least two sigmas"),
        (["--sigma", "0", "0.1", "--attack", "none"], "leave none out"),
        (["--sigma", "0", "0.1", "--samples", "1", "8"], "one number of passes"),
    ):
        assert main([*arguments, *change]) == 2
        assert message in capsys.readouterr().err
    curve = found["abstention"]["curve"]
    assert curve[-1]["coverage"] == 1
    assert set(found["abstention"]["least share"]) == {"0.01", "0.02", "0.05", "0.1", "0.2"}
