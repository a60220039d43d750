"""The table of rows, and its summary."""

import pyarrow as pa
import pytest
import torch
from scipy.stats import t as student

import smoothinfer as si
from smoothinfer.evaluation.rows import CLEAN, summarise


def test_accuracy_counts():
    assert si.accuracy(pa.table({"correct": [True] * 3 + [False]})).value == 0.75


def test_clean_only_has_no_attacked_figure(world):
    noisy, images, labels = world
    (entry,) = summarise(si.evaluate(si.SmoothedClassifier(noisy, 2), (images, labels)))
    assert entry["attacked"] is None
    assert entry["clean"]["images"] == 200


def test_what_a_vote_adds_is_paired_with_its_passes(world):
    noisy, images, labels = world
    rows = si.evaluate(si.SmoothedClassifier(noisy, samples=16), (images, labels), attack="pgd")
    (entry,) = summarise(rows)
    for name, attack in (("clean", CLEAN), ("attacked", "pgd")):
        mine = [row for row in rows.to_pylist() if row["attack"] == attack]
        each = torch.tensor([row["correct"] - row["hits"] / 16 for row in mine])
        gain, half = entry[name]["gain"], float(each.std()) / len(each) ** 0.5
        half *= float(student.ppf(0.975, len(each) - 1))
        assert gain["value"] == pytest.approx(float(each.mean()), abs=1e-6)
        assert gain["value"] == pytest.approx(entry[name]["value"] - entry[name]["per_draw"])
        assert gain["high"] - gain["value"] == pytest.approx(half, rel=1e-3, abs=1e-5)
    (alone,) = summarise(si.evaluate(si.SmoothedClassifier(noisy, 1), (images, labels)))
    assert alone["clean"]["gain"] == {"value": 0, "low": 0, "high": 0}  # a vote of one is one pass


def test_one_pass_is_the_mean_over_the_most_passes_beside_it():
    def rows(samples, hits):
        about = {"attack": "none", "rule": "prediction", "samples": samples, "image": 0, "label": 0}
        about |= {"predicted": 0, "share": 1.0, "distance": 0.0, "forwards": 0.0, "backwards": 0.0}
        return [about | {"hits": count, "correct": 2 * count > samples} for count in hits]

    lucky = rows(1, [1, 1, 1, 1])  # one draw of the weights that is right everywhere
    found = summarise(pa.Table.from_pylist(lucky + rows(4, [4, 3, 1, 0])))
    one, four = (entry["clean"] for entry in found)
    assert one["value"] == one["per_draw"] == one["every_draw"] == four["per_draw"] == 0.5
    assert 0 <= one["low"] < 0.5 < one["high"] <= 1
    assert four["value"] == 0.5
    assert four["every_draw"] == 0.25
    assert summarise(pa.Table.from_pylist(lucky))[0]["clean"]["value"] == 1  # all that there is


def test_the_interval_of_a_share_of_few_images_stays_a_share(world):
    noisy, images, labels = world
    smooth = si.SmoothedClassifier(noisy, 4)
    for count in (1, 2, 3):
        few = images[:count], labels[:count]
        for entry in summarise(si.evaluate(smooth, few, attack="pgd", samples=[1, 4])):
            for found in (entry["clean"], entry["attacked"]):
                for low, high in (found["per_draw_interval"], (found["low"], found["high"])):
                    assert 0 <= low <= high <= 1


def test_rows_name_the_norm_where_it_is_not_l_infinity(world):
    noisy, images, labels = world
    asked = si.SmoothedClassifier(noisy, 2), (images, labels)
    rows = si.evaluate(*asked, attack="fgsm", ball=si.L2(0.5))
    table = rows.to_pandas()
    assert set(table[table["attack"] == "fgsm"]["norm"]) == {"l2"}
    assert table[table["attack"] == "none"]["norm"].isna().all()
    (entry,) = summarise(rows)
    assert entry["description"]["norm"] == "l2"
    assert entry["clean"]["images"] == entry["attacked"]["images"]
    assert len(rows.accuracy()) == 2
    assert "norm" not in si.evaluate(*asked, attack="fgsm").column_names
