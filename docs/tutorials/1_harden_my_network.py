"""
Harden a network that you have
==============================

You have a state dict of a network that was trained on clean images: from your own code (as here),
from timm (``--model timm:resnet18``) or from Hugging Face (``--model hf:...``). ``smoothinfer
harden`` reads it as data, adds noise and trains on with adversarial examples.
"""

# %%
# A network that somebody trained
# -------------------------------
#
# Any module from images in [0, 1] to logits will do. This one learns the digits in a few seconds.

import tempfile
from pathlib import Path

import torch
from torch import nn

import smoothinfer as si

folder = Path(tempfile.mkdtemp())
data = {split: si.load_data("digits", split) for split in ("train", "test")}
data["train"]

# %%

torch.manual_seed(0)
network = si.smallnet(width=8)
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for _ in range(150):
    rows = torch.randint(len(data["train"]), (128,))
    logits = network(data["train"].images[rows])
    loss = nn.functional.cross_entropy(logits, data["train"].labels[rows])
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
torch.save(network.state_dict(), folder / "mine.pth")

# %%
# How robust is it?
# -----------------

ball = si.Linf(0.1)
before = si.evaluate(network.eval(), data["test"], attack="pgd(steps=10, draws=8)", ball=ball)
before

# %%
# Harden it
# ---------
#
# The command line does the same: ``smoothinfer harden mine.pth --model "smallnet(width=8)" --data
# digits --recipe digits/cni-w.yaml --out run``. The recipe says how: learned noise on the weights,
# adversarial training. Our network takes images in [0, 1] as they are: nothing is normalised.

overrides = ["model.width=8", f"init_from={folder / 'mine.pth'}", "epochs=6", "lr=0.05"]
overrides += ["normalise.mean=[0.0]", "normalise.std=[1.0]"]
recipe = si.load_recipe("digits/cni-w.yaml", overrides)
history = si.train_run(recipe, data["train"], folder / "run")

# %%
# The hardened network, as a vote of 64 passes:

model = si.load(folder / "run")
smooth = si.SmoothedClassifier(model, samples=64)
after = si.evaluate(smooth, data["test"], attack="pgd(steps=10, draws=8)", ball=ball)
after

# %%
# The same attack, whose gradients average over 8 draws of the noise, leaves more than of the first
# network. That is bought with clean accuracy: the column "one pass" says how much of it a single
# pass lost, and how much of that the vote brings back. What the *vote* adds under attack is another
# question, and a stronger attack leaves less: see `Evaluate a noisy network honestly`.
