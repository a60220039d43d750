"""
Serve within a budget
=====================

A vote may end when its time is up, or when more passes are not worth their price. The HTTP
endpoint does both.
"""

# %%

import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt

import smoothinfer as si

folder = Path(tempfile.mkdtemp())
recipe = si.load_recipe("digits/cni-w.yaml", ["epochs=4"])
si.train_run(recipe, si.load_data("digits", "train"), folder / "run")
noisy = si.load(folder / "run")
data = si.load_data("digits", "test", limit=64)

# %%
# As long as it is worth it
# -------------------------
#
# With ``stop="value"`` clear images take few passes.

smooth = si.SmoothedClassifier(noisy, samples=256)
answer = smooth.predict(data.images, stop="value")
answer

# %%

figure, panel = plt.subplots(figsize=(5, 3))
panel.hist(answer.samples.tolist(), bins=20)
panel.set_xlabel("passes")
panel.set_ylabel("images")
panel.set_title("passes of a vote that ends by value")
plt.show()

# %%
# Within 20 milliseconds
# ----------------------

begun = time.perf_counter()
answer = smooth.predict(data.images[:1], budget_ms=20)
milliseconds = 1000 * (time.perf_counter() - begun)
print(f"{int(answer.samples)} passes in {milliseconds:.1f} ms")

# %%
# Networks drawn in advance
# -------------------------
#
# Drawing noisy weights takes most of a vote on one image. A pool keeps drawn networks in memory,
# and renews them.

pooled = si.SmoothedClassifier(noisy, samples=64, pool=si.NetworkPool(128))
pooled.predict(data.images[:1])
for name, each in {"fresh": si.SmoothedClassifier(noisy, 64), "pool": pooled}.items():
    begun = time.perf_counter()
    for _ in range(10):
        each.predict(data.images[:1])
    print(f"{name}: {100 * (time.perf_counter() - begun):.1f} ms for 64 passes of one image")

# %%
# Over HTTP
# ---------
#
# ``smoothinfer serve run --budget 50 --pool 128`` answers pictures at ``POST /predict``, shows a
# page at ``/``, and says at its start how many requests a second it can hold.
