"""Adversarial examples as files, one for each attack."""

import pytest
import torch

import smoothinfer as si
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.examples import ExampleExport
from tests.conftest import line


def work_of(radius, attack="fgsm"):
    data = si.load_data("digits", "test", 150)
    return prepare(line(), data, attack=attack, ball=si.Linf(radius))


def test_a_file_joins_the_batches_of_an_attack(tmp_path):
    work, export = work_of(0.1), ExampleExport(tmp_path)
    export.write(work)
    assert [path.name for path in tmp_path.iterdir()] == ["fgsm.safetensors"]
    kept = si.load_examples(export.path("fgsm"))
    assert torch.equal(kept["images"], work.images)
    assert torch.equal(kept["labels"], work.labels)
    batches = [work.examples("fgsm", at)[0] for at in (0, 128)]
    assert torch.equal(kept["adversarial"], torch.cat(batches))
    assert not torch.equal(kept["adversarial"], kept["images"])


def test_a_file_is_written_again_only_for_other_examples(tmp_path):
    export = ExampleExport(tmp_path)
    export.write(work_of(0.1))
    path = export.path("fgsm")
    before = path.stat().st_mtime_ns
    export.write(work_of(0.1))
    assert path.stat().st_mtime_ns == before
    export.write(work_of(0.2))  # the file holds the examples of the last call
    kept = si.load_examples(path)
    assert (kept["adversarial"] - kept["images"]).abs().max() > 0.15


def test_a_damaged_file_is_written_again(tmp_path):
    export = ExampleExport(tmp_path)
    export.path("fgsm").write_bytes(b"nothing")
    export.write(work_of(0.1))
    assert len(si.load_examples(export.path("fgsm"))["labels"]) == 150


def test_examples_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(si.InputError, match="no adversarial examples in"):
        si.load_examples(tmp_path / "fgsm.safetensors")
