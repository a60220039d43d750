"""
Evaluate a noisy network honestly
=================================

A network whose passes differ looks robust for three reasons that are none: the attack follows the
gradient of another draw than the one that answers, one lucky pass counts as an answer, or there
is no gradient to follow. The ``standard`` attack averages over draws and counts an image as
broken only when a fresh vote says so.
"""

# %%
# A random network of your own
# ----------------------------
#
# Any module will do whose passes differ, such as one with dropout left on. On the command line it
# is named by a function without arguments, in a file of the current folder: ``smoothinfer standard
# my_module:network --data digits --out standing``. A network is measured in eval mode, where
# dropout draws nothing: the function turns it on again, ``net.eval(); net.drop.train()``, and
# returns ``net``, whose own mode stays eval. Here a network with much noise on its images.

import tempfile
from pathlib import Path

import smoothinfer as si

data = si.load_data("digits", "test", limit=100)
overrides = ["epochs=4", "noise.inputs.name=gaussian", "noise.inputs.sigma=0.15"]
recipe = si.load_recipe("digits/cni-w.yaml", overrides)
folder = Path(tempfile.mkdtemp())
si.train_run(recipe, si.load_data("digits", "train"), folder / "run")
noisy = si.load(folder / "run")

# %%
# What a careless evaluation says
# -------------------------------
#
# An attack on one frozen draw of the noise, tested on a fresh one, as several published defences
# were evaluated; beside it PGD whose gradients average over more and more draws.

ball = si.Linf(0.15)
smooth = si.SmoothedClassifier(noisy, samples=64)
attacks = ["one_draw(steps=10)", *(f"pgd(steps=10, draws={draws})" for draws in (1, 4, 16))]
rows = si.evaluate(smooth, data, attack=attacks, ball=ball)
rows

# %%
# What is left under the standard attack
# --------------------------------------

strongest = si.evaluate(smooth, data, attack="standard(budget='quick')", ball=ball)
strongest

# %%
# Is the gradient to be trusted?
# ------------------------------
#
# The audit runs checks that tell robustness from masked gradients and mere randomness.
# ``quick=True`` takes few images: the verdict says where they are too few.

found = si.audit(noisy, data, ball=ball, quick=True)
found
