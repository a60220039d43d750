"""
A sweep on several machines
===========================

A sweep measures every combination of settings. Its units are stored one by one: a killed run goes
on, and several machines share the work without talking to each other.
"""

# %%

import tempfile
from pathlib import Path

import yaml

import smoothinfer as si
from smoothinfer.cli import main

folder = Path(tempfile.mkdtemp())
recipe = si.load_recipe("digits/cni-w.yaml", ["epochs=3"])
si.train_run(recipe, si.load_data("digits", "train"), folder / "run")

sweep = {
    "models": {"cni-w": str(folder / "run")},
    "data": "digits",
    "limit": 64,
    "sigma": [0, 0.1, 0.2],
    "attacks": ["pgd(steps=5)", "epgd(steps=5)"],
    "ball": {"name": "linf", "radius": 0.1},
    "rules": ["prediction", "soft"],
    "samples": [1, 8, 64],
}
(folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))

# %%
# Two parts
# ---------
#
# On two machines these two lines run at the same time.

main(["sweep", str(folder / "sweep.yaml"), "--shard", "0/2", "--out", str(folder / "part0")])
main(["sweep", str(folder / "sweep.yaml"), "--shard", "1/2", "--out", str(folder / "part1")])

# %%
# Put together
# ------------

parts = [str(folder / "part0"), str(folder / "part1")]
main(["sweep", str(folder / "sweep.yaml"), "--merge", *parts, "--out", str(folder / "whole")])

# %%
# In a notebook
# -------------

rows = si.load_results(folder / "whole")
si.accuracy_against_samples(rows.filter(sigma=0.1), title="sigma 0.1")
