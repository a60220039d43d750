"""Stores: shards written once, checked when they are read, shared by writers."""

import json
import random

import pyarrow.compute as pc
import pytest

import smoothinfer as si
from smoothinfer.evaluation.evaluate import prepare
from smoothinfer.evaluation.store import Store
from tests.conftest import line


def test_every_flipped_byte_is_found(tmp_path):
    data = si.load_data("digits", "test", 100)
    si.evaluate(line(), data, attack="fgsm", ball=si.Linf(0.1), out=tmp_path / "rows")
    shard = sorted((tmp_path / "rows").glob("*.parquet"))[0]
    content, chance = shard.read_bytes(), random.Random(0)
    copy = tmp_path / "copy" / shard.name
    copy.parent.mkdir()
    for _ in range(300):
        broken = bytearray(content)
        broken[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        copy.write_bytes(bytes(broken))
        with pytest.raises(si.InputError, match=shard.name):
            Store(copy.parent).read()
    copy.write_bytes(content)
    assert Store(copy.parent).read().num_rows > 0


def test_a_shard_that_is_cut_off_is_named(tmp_path):
    si.evaluate(line(), si.load_data("digits", "test", 2), out=tmp_path)
    broken = next(tmp_path.glob("*.parquet"))
    broken.write_bytes(b"nothing")
    with pytest.raises(si.InputError, match=broken.name):
        Store(tmp_path).read()


def test_long_names_of_attacks_make_files(tmp_path):
    store, unit = Store(tmp_path), f"pgd({'x' * 400})-000000-abc"
    store.write(unit, si.evaluate(line(), si.load_data("digits", "test", 2)).table)
    assert Store(tmp_path).has(unit)
    assert not Store(tmp_path).has(unit.replace("abc", "abd"))


def test_two_writers_leave_one_unit(tmp_path):
    data = si.load_data("digits", "test", 20)
    noisy = si.NoisyModel(line(), inputs=si.Gaussian(0.05)).eval()
    work = prepare(si.SmoothedClassifier(noisy, 3), data, attack="fgsm", ball=si.Linf(0.1))
    one, two = Store(tmp_path), Store(tmp_path)  # neither knows of the other
    for unit in work.units:
        for store in (one, two):
            store.write(unit, *work.run_units([unit]))
    assert one.read(list(work.units)).num_rows == 40
    assert Store(tmp_path).read().num_rows == 40


def test_a_unit_that_another_process_has_stored_meanwhile_is_not_stored_again(tmp_path):
    rows = si.evaluate(line(), si.load_data("digits", "test", 2))
    one, two = Store(tmp_path), Store(tmp_path)
    one.write("a-000000-0", rows.replace_schema_metadata({"seconds": "1"}))
    two.write("a-000000-0", rows.replace_schema_metadata({"seconds": "2"}))
    assert len(list(tmp_path.glob("*.parquet"))) == 1
    assert two.read().equals(rows.table)


def test_seconds_are_those_of_each_model_and_attack_among_the_units_asked_for(tmp_path):
    store, data = Store(tmp_path), si.load_data("digits", "test", 2)
    for unit, model, seconds in (("a-0", "one", 2), ("a-1", "two", 6), ("a-2", "old", 8)):
        rows = si.evaluate(line(), data, attack="fgsm", describe={"model": model})
        rows = rows.table.filter(pc.equal(rows.table["attack"], "fgsm"))
        about = {"attack": "fgsm", "images": "2", "seconds": str(seconds)}
        store.write(unit, rows.replace_schema_metadata(about))
    found = store.seconds(["a-0", "a-1"])
    assert {json.loads(each)["model"]: spent for each, spent in found.items()} == {
        "one": 1.0,
        "two": 3.0,
    }


def test_attacks_whose_rows_would_share_a_file_are_refused(tmp_path):
    data, alike = si.load_data("digits", "test", 2), {"a b": si.fgsm, "a_b": si.fgsm}
    with pytest.raises(si.InputError, match="spelt alike: call them differently"):
        si.evaluate(line(), data, attack=alike, out=tmp_path)
    for name, other in (("a b", None), ("a_b", "holds rows of attack 'a b'")):
        if other is None:
            si.evaluate(line(), data, attack={name: si.fgsm}, out=tmp_path)
            continue
        with pytest.raises(si.InputError, match=other):
            si.evaluate(line(), data, attack={name: si.fgsm}, out=tmp_path)
