"""Adversarial examples as files, one for each attack."""

import contextlib
import random

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


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    export, chance = ExampleExport(tmp_path), random.Random(0)
    export.write(work_of(0.1))
    path = export.path("fgsm")
    content, whole = path.read_bytes(), si.load_examples(path)
    places = [chance.randrange(len(content)) for _ in range(60)] + [*range(8, 300)]
    same = 0
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(broken))
        with contextlib.suppress(si.InputError):
            again = si.load_examples(path)
            same += 1
            assert all(torch.equal(again[name], whole[name]) for name in whole)
    assert same < 0.02 * len(places)
    path.write_bytes(content[:-1])
    with pytest.raises(si.InputError, match=rf"{path.name} is damaged.*attack makes it again"):
        si.load_examples(path)


def test_attacks_that_are_spelt_alike_have_files_of_their_own(tmp_path):
    export = ExampleExport(tmp_path)
    attacks = ["pgd(steps=7)", "pgd[steps=7]", "pgd_steps=7", "pgd steps=7", "PGD(steps=7)", "pgd"]
    attacks += ["_pgd", "pgd_", "PGD", ".pgd", "..", "", "a" * 400, "a" * 401, "(", ")", "ü", "é"]
    attacks += [export.path(attack).stem for attack in attacks]  # a name that looks like a file's
    names = {export.path(attack).name.lower() for attack in set(attacks)}
    assert len(names) == len(set(attacks))
    assert max(map(len, names)) < 200


def test_examples_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(si.InputError, match="no adversarial examples in"):
        si.load_examples(tmp_path / "fgsm.safetensors")
