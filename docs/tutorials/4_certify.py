"""
Certify a network
=================

Under Gaussian noise a vote can be *proved* to stay: no change of the image shorter than the
radius moves it. Here smoothing helps beyond doubt. The network must be trained with the noise.
"""

# %%

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import smoothinfer as si

folder = Path(tempfile.mkdtemp())
overrides = ["noise.weights=null", "noise.inputs.name=gaussian", "noise.inputs.sigma=0.25"]
overrides += ["loss=natural", "epochs=6"]
recipe = si.load_recipe("digits/cni-w.yaml", overrides)
si.train_run(recipe, si.load_data("digits", "train"), folder / "run")
noisy = si.load(folder / "run")

# %%
# Certificates
# ------------
#
# The passes of an image end when all radii are decided, 10,000 at the most.

data = si.load_data("digits", "test", limit=60)
radii = [0.0, 0.25, 0.5, 0.75]
found = si.certify(noisy, data.images, radii=radii, samples=10_000, seed=0)
right = found.labels == data.labels
certified = [float((right & (found.radii >= radius)).double().mean()) for radius in radii]
print({radius: f"{100 * share:.0f} %" for radius, share in zip(radii, certified, strict=True)})

# %%
# Passes were few where the matter was clear:

print(f"{float(found.samples.double().mean()):,.0f} passes an image on average, of 10,000")

# %%

figure, panel = plt.subplots(figsize=(5, 3))
panel.step(radii, [100 * share for share in certified], where="pre", marker="o")
panel.set_xlabel("L2 radius, pixels in [0, 1]")
panel.set_ylabel("certified accuracy, %")
panel.set_title("digits, Gaussian noise of 0.25")
panel.set_ylim(0, 100)
plt.show()
