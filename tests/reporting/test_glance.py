"""A report begins with a verdict in words, and models against attacks with the worst case."""

import pyarrow as pa

from smoothinfer.evaluation.judgement import LEANS
from smoothinfer.reporting.attack_names import short_attack
from smoothinfer.reporting.collect import records
from smoothinfer.reporting.glance import compared_groups, glance_table, lines_of, verdict


def rows(model, right, passes=8, hits=None):
    """Rows of four images: {attack: which are right}."""
    names = ("image", "correct", "attack", "hits", "used", "samples", "model")
    table = {name: [] for name in (*names, "forwards", "backwards")}
    for attack, correct in right.items():
        for image, each in enumerate(correct):
            table["image"].append(image)
            table["correct"].append(bool(each))
            table["attack"].append(attack)
            table["hits"].append(passes * each if hits is None else hits)
            table["used"].append(passes)
            table["samples"].append(passes)
            table["model"].append(model)
            table["forwards"].append(0)
            table["backwards"].append(0)
    return pa.table(table)


ONE = rows("one", {"none": [1, 1, 1, 0], "pgd": [1, 1, 0, 0], "apgd": [1, 0, 1, 0]})
TWO = rows("two", {"none": [1, 1, 1, 1], "pgd": [1, 1, 1, 0], "apgd": [1, 1, 0, 0]})


def test_the_worst_case_counts_images_that_survive_every_attack():
    (line,) = lines_of("folder", ONE)
    assert line.name == "one"
    assert line.worst.value == 0.25  # image 0 alone
    assert line.accuracies["none"].value == 0.75
    (line,) = lines_of("folder", TWO)
    assert line.worst.value == 0.5
    assert line.strongest == "apgd"


def test_models_stand_by_strength_and_attacks_from_weak_to_strong():
    (lines,) = compared_groups({"a": ONE, "b": TWO})
    table = glance_table(lines)
    assert table.heads == ["model", "clean", "PGD", "APGD", "worst case"]
    assert [line[0] for line in table.lines] == ["two", "one"]
    said = verdict(lines)
    assert said.startswith("two is right on 100.0 % of the clean images, and on 50.0 ")
    assert "It keeps most of 2 settings compared on these same images" in said


def test_lines_under_other_attacks_are_not_compared():
    other = rows("other", {"none": [1] * 4, "nattack": [1] * 4})
    lines, (line,) = compared_groups({"c": other, "a": ONE, "b": TWO})
    assert {each.name for each in lines} == {"one", "two"}
    assert line.name == "other"
    assert "settings" not in verdict([line])


def test_another_radius_norm_or_data_set_is_not_compared():
    def at(**columns):
        table = rows("m", {"none": [1] * 4, "pgd": [1, 1, 0, 0]})
        for name, value in columns.items():
            table = table.append_column(name, pa.array([value] * len(table)))
        return table

    given = {"data": "digits", "radius": 0.5}
    others = ({"radius": 0.25}, {"norm": "l2"}, {"data": "letters"})
    tables = {str(other): at(**given | other) for other in ({}, *others)}
    groups = compared_groups(tables)
    assert [len(group) for group in groups] == [1] * 4
    subjects = {group[0].subject for group in groups}
    assert {"digits, L-infinity radius 0.5", "digits, L2 radius 0.5"} < subjects
    assert len(compared_groups({"a": at(**given), "b": at(**given)})) == 1


def test_what_the_vote_adds_is_told_with_its_sign():
    more = rows("m", {"none": [1] * 4, "apgd": [1, 1, 1, 1]}, hits=5)
    less = rows("m", {"none": [1] * 4, "apgd": [0, 0, 0, 0]}, hits=3)
    same = rows("m", {"none": [1] * 4, "apgd": [1, 0, 1, 0]}, hits=4)
    for table, words in ((more, "adds accuracy"), (less, "takes accuracy"), (same, "adds nothing")):
        assert words in verdict(lines_of("x", table))
    standard = rows("m", {"none": [1] * 4, "standard(budget='quick')": [0] * 4}, hits=3)
    said = verdict(lines_of("x", standard))
    assert "adds no measurable robustness" in said
    assert LEANS in said
    single = rows("m", {"none": [1] * 4, "apgd": [1] * 4}, passes=1)
    assert "the vote" not in verdict(lines_of("x", single))


def test_a_gain_holds_under_the_attacks_that_were_tried_unless_the_standard_one_was():
    tried = {"none": [1] * 4, "epgd(steps=10)": [1] * 4, "multitargeted": [1] * 4}
    (line,) = lines_of("x", rows("m", tried, hits=5))
    said = verdict([line])
    assert "the vote adds accuracy" in said
    assert "This holds under EPGD-10 only" in said
    assert "take the gain away; the command smoothinfer standard tells" in said
    (line,) = lines_of("x", rows("m", tried | {"standard(budget='quick')": [1] * 4}, hits=5))
    assert "the vote adds accuracy" in verdict([line])
    assert "only" not in verdict([line])
    (line,) = lines_of("x", rows("m", tried, hits=8))
    assert "may leave less; the command" in verdict([line])


def test_figures_are_means_over_the_seeds_as_in_the_table_of_all_settings():
    tables = []
    for seed, right in enumerate(([1, 1, 1, 0], [1, 0, 0, 0])):
        table = rows("m", {"none": [1] * 4, "apgd": right})
        tables.append(table.append_column("seed", pa.array([seed] * len(table))))
    both = pa.concat_tables(tables)
    (line,) = lines_of("x", both)
    (record,) = records(both)
    assert line.seeds == 2
    assert line.worst.value == line.accuracies["apgd"].value == 0.5
    assert f"{record['attacked']['low']:.1f}" == f"{100 * line.accuracies['apgd'].low:.1f}"
    assert 100 * line.gain.value == record["attacked"]["gain"]
    assert "means over 2 seeds" in verdict([line])


def test_nothing_to_compare_is_no_section():
    clean = rows("m", {"none": [1, 0, 1, 1]})
    assert compared_groups({"a": clean}) == []


def test_short_names():
    assert short_attack("pgd(steps=7, step_size=2/255)") == "PGD-7"
    assert short_attack("standard(budget='quick')") == "standard (quick)"
    assert short_attack("a name (of mine") == "a name (of mine"
