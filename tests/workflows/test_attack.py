import json

import torch

import smoothinfer as si
from smoothinfer.cli import main


def test_attack_keeps_the_examples_and_a_sheet(tiny_run, tmp_path):
    source = f"transfer(source='{tiny_run}', steps=2, sigma=0.1)"
    arguments = ["attack", str(tiny_run), "--data", "digits", "--attack", "pgd(steps=2)", source]
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
    costs = json.loads((tmp_path / "costs.json").read_text())["seconds per image"]
    assert {each["attack"] for each in costs} == {"pgd(steps=2)", source}
    assert all(each["seconds"] > 0 for each in costs)
    assert all(len(si.load_examples(path)["images"]) == 150 for path in found)
    # Rows of another radius between: the files hold the examples of the last command.
    for radius in ("0.2", "0.1"):
        changed = [radius if word == "0.1" else word for word in arguments]
        assert main(changed) == 0
        far = [si.load_examples(path) for path in found]
        assert all(
            (f["adversarial"] - f["images"]).abs().max() <= float(radius) + 1e-6 for f in far
        )
        assert all((f["adversarial"] - f["images"]).abs().max() > float(radius) / 2.1 for f in far)
    entry = json.loads((tmp_path / "summary.json").read_text())["settings"][0]["attacked"]
    assert (entry["forwards"], entry["backwards"]) == (2.0, 2.0)
    assert entry["every_draw"] <= entry["per_draw"] <= 1
