"""Tables of results: accuracies, gains of the vote, costs of attacks."""

import smoothinfer as si
from smoothinfer.evaluation.rows import crafted_setting, summarise
from smoothinfer.reporting.best_settings import best_entries
from smoothinfer.reporting.collect import collect
from smoothinfer.reporting.result_tables import accuracy_table, cost_table, gain_table, gain_text
from tests.conftest import line


def test_accuracies_have_a_line_for_each_setting_and_a_column_for_each_attack(results):
    table = accuracy_table(summarise(collect(results / "sweep").rows))
    assert table.heads == ["sigma", "seed", "rule", "samples", "clean", "FGSM", "PGD-2"]
    assert len(table.lines) == 3 * 2 * 2 * 3  # sigmas, seeds, rules, samples
    assert table.markdown().count("\n") == 2 + len(table.lines)
    assert table.lines[0][:4] == ["0", "0", "prediction", "1"]
    assert all(all(line) for line in table.lines)


def test_columns_with_one_value_are_left_out():
    rows = si.evaluate(line(), si.load_data("digits", "test", 20), attack="fgsm")
    assert accuracy_table(summarise(rows)).heads == ["clean", "FGSM"]


def test_the_gain_is_that_of_the_vote_of_the_most_passes(results):
    entries = summarise(collect(results / "sweep").rows)
    table = gain_table(entries)
    assert table.title.startswith("Gain of the vote of 4 over one pass")
    most = [entry for entry in entries if entry["description"]["samples"] == 4]
    told = [gain_text(each["attacked"]) for each in most]
    assert sorted(line[-1] for line in table.lines) == sorted(told)
    single = [entry for entry in entries if entry["description"]["samples"] == 1]
    assert gain_table(single).markdown() == ""


def entry(attack, right, **description):
    figure = {"value": right, "low": right, "high": right, "images": 10}
    left = figure | {"per_draw": 0.25, "every_draw": 0.125, "forwards": 7.0, "backwards": 1400.0}
    return {
        "description": {"attack": attack, "samples": 8, "rule": "soft", **description},
        "clean": None,
        "attacked": left | {"gain": {"value": 0.0, "low": 0.0, "high": 0.0}},
    }


def test_attacks_are_listed_with_their_cost_the_strongest_last():
    seconds = {'{"attack": "pgd"}': 0.0034}
    table = cost_table([entry("apgd", 0.375), entry("pgd", 0.5)], seconds)
    assert table.heads[0] == "attack"  # one rule and no sigma: nothing else varies
    assert [line[0] for line in table.lines] == ["PGD", "APGD"]
    assert table.lines[0][1:5] == ["1,400", "7", "3.4", "25.0"]
    assert table.lines[1][3] == ""  # its time is not known
    assert "| 37.5 (37.5-37.5) | 12.5 |" in table.markdown()


def test_one_attack_is_not_compared():
    assert cost_table([entry("pgd", 0.5)], {}).markdown() == ""


def test_settings_that_differ_have_columns():
    entries = [entry("pgd", 0.5, sigma=0.06), entry("pgd", 0.75, sigma=0.0)]
    assert [line[:2] for line in cost_table(entries, {}).lines] == [["0", "PGD"], ["0.06", "PGD"]]


def test_each_setting_has_a_time_of_its_own():
    entries = [entry("pgd", 0.5, sigma=sigma) for sigma in (0.0, 0.06)]
    seconds = {crafted_setting(each["description"]): 1.0 + at for at, each in enumerate(entries)}
    assert [line[4] for line in cost_table(entries, seconds).lines] == ["1,000.0", "2,000.0"]


def test_costs_are_in_the_order_of_the_settings():
    right = {(0.1, "pgd"): 0.5, (0.0, "pgd"): 0.25, (0.1, "apgd"): 0.125, (0.0, "apgd"): 0.375}
    entries = [entry(attack, value, sigma=sigma) for (sigma, attack), value in right.items()]
    told = [line[:2] for line in cost_table(entries, {}).lines]
    assert told == [["0", "APGD"], ["0", "PGD"], ["0.1", "PGD"], ["0.1", "APGD"]]


def test_of_many_settings_the_best_of_each_ball_are_kept_with_all_their_columns():
    grid = [(radius, sigma) for radius in (0.0, 0.1) for sigma in (0.0, 0.1, 0.2)]
    entries = [entry("pgd", 1 - r - (s - 0.1) ** 2, radius=r, sigma=s) for r, s in grid]
    entries.append(entry("apgd", 0.0, radius=0.0, sigma=0.1))  # the strongest counts
    assert best_entries(entries, 6) == entries
    kept = best_entries(entries, 2)
    assert [each["description"]["radius"] for each in kept] == [0.0, 0.1]
    assert [each["description"]["sigma"] for each in kept] == [0.0, 0.1]
    same = [each for each in kept if each["description"]["radius"] == 0.1]
    assert accuracy_table(same, among=entries).heads[:2] == ["radius", "sigma"]
