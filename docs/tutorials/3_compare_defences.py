"""
Compare defences in one table
=============================

The leaderboard runs one protocol over a list of models and defences around them, and writes a
card for each.
"""

# %%
# Three entries
# -------------
#
# A network without noise, the same with noise on the images, and the same with activations that are
# dropped at random.

import tempfile
from pathlib import Path

import yaml

import smoothinfer as si
from smoothinfer.cli import main

folder = Path(tempfile.mkdtemp())
recipe = si.load_recipe("digits/cni-w.yaml", ["epochs=4", "noise.weights=null"])
si.train_run(recipe, si.load_data("digits", "train"), folder / "plain")

entries = {
    "plain": {"model": str(folder / "plain")},
    "noise on the images": {"model": str(folder / "plain"), "sigma": 0.1},
    "activation pruning": {"model": str(folder / "plain"), "defence": "activation_pruning"},
}
board = {"data": "digits", "limit": 60, "budget": "quick", "samples": 32, "entries": entries}
board["ball"] = {"name": "linf", "radius": 0.1}
_ = (folder / "board.yaml").write_text(yaml.safe_dump(board))

# %%
# Judge them
# ----------

main(["leaderboard", str(folder / "board.yaml"), "--out", str(folder / "out")])

# %%
# The same table for a paper, and the picture that stands on the page:

print((folder / "out" / "leaderboard.tex").read_text())

# %%

import matplotlib.pyplot as plt

plt.figure(figsize=(7, 3.5))
plt.imshow(plt.imread(folder / "out" / "leaderboard.png"))
plt.axis("off")
plt.show()
