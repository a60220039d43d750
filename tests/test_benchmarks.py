"""The benchmarks run; how fast is for them to say."""

import argparse

import pytest
from benchmarks.__main__ import SECTIONS, Benchmarks, table


@pytest.mark.parametrize("section", [name for name in SECTIONS if "one_image" not in name])
def test_every_case_of_a_section_runs(section):
    options = argparse.Namespace(images=2, samples=2, device="cpu", precision="fp32")
    cases, flop = getattr(Benchmarks(options), section)()
    assert {"naive loop", "smoothinfer"} <= set(cases)
    assert flop > 0
    for run in cases.values():
        run()
    timing = {"median": 2.0, "fastest": 1.0, "slowest": 3.0}
    found = {"about": section, "flop": flop, "cases": dict.fromkeys(cases, timing)}
    assert table(found, {"fp32": 1e9}).count("| 1.00 |") == len(cases)
