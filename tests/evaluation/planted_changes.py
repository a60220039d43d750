"""Plant changes in a copy of the package and evaluate again: one process, a fork for each change.

``python planted_changes.py PACKAGE FOLDER`` prints, for each change, the lines of the evaluation
that say which rows were taken over and which were computed anew.
"""

import contextlib
import importlib
import io
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pyarrow.compute
import torch
from torch import nn

FACTORY = '''
import numpy as np
import torch
from torch import nn
import smoothinfer as si

SCALE = 2.0


def scaled(weights):
    """Scale the weights."""
    return SCALE * weights


def make():
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(scaled(torch.from_numpy(np.load("weights.npy"))))
        layer.bias.zero_()
    return si.NoisyModel(nn.Sequential(nn.Flatten(), layer), inputs=si.Gaussian(0.1)).eval()
'''

# File, old text, new text. Paths are of the copied package, or of the user's files beside it.
CHANGES = {
    "nothing": None,
    "a sign in a ball": ("numerics/balls.py", "return gradient.sign()", "return -gradient.sign()"),
    "a default step size": ("attacks/projected_gradient.py", "radius / 4 if", "radius / 5 if"),
    "a loss": ("attacks/losses.py", "F.softplus(others - right", "F.softplus(right - others"),
    "the gate of attacks": ("attacks/gate.py", "ball.radius + 1e-3", "ball.radius + 2e-3"),
    "the scale of a noise": ("noise/additive.py", "step = self.sigma *", "step = 2 * self.sigma *"),
    "the rounding of a verdict": ("engine/sums.py", "rows].argmax", "rows].half().argmax"),
    "the user's factory": ("../user.py", "SCALE = 2.0", "SCALE = 3.0"),
    "a weight": None,
    "a docstring": ("attacks/projected_gradient.py", "Move each image", "Shift each picture"),
    "a comment": ("engine/tally.py", "self.passes = 0", "self.passes = 0  # none yet"),
    "the text of an error": ("numerics/balls.py", "radius must be finite", "the radius is finite"),
    "another attack": ("attacks/square_attack.py", "_DRAWS = 20", "_DRAWS = 21"),
}


def evaluate(package: Path, folder: Path) -> str:
    """Return the lines that the evaluation prints about its rows."""
    sys.path[:0] = [str(package.parent), str(folder)]
    importlib.invalidate_caches()
    main = importlib.import_module("smoothinfer.cli").main
    arguments = ["evaluate", "user:make", "--data", "digits", "--limit", "8", "--samples", "4"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        status = main([*arguments, "--attack", "pgd(steps=2)", "--out", str(folder / "out")])
    lines = text.getvalue().splitlines()
    return f"status {status}; " + "; ".join(
        line for line in lines if "taken over" in line or "computed anew" in line
    )


def in_fork(work, *arguments) -> str:
    """Return the result of ``work`` in a process of its own."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        warnings.simplefilter("ignore")
        try:
            result = work(*arguments)
        except BaseException as error:
            result = f"failed: {error!r}"
        os.write(writing, result.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        result = pipe.read()
    os.wait()
    return result


def main(source: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    found = {}
    for name, change in CHANGES.items():
        place = folder / name.replace(" ", "_")
        package = place / "smoothinfer"
        shutil.copytree(source, package)
        (place / "user.py").write_text(FACTORY)
        weights = np.random.default_rng(0).normal(size=(10, 64)).astype(np.float32)
        np.save(place / "weights.npy", weights)
        os.chdir(place)
        if name != "nothing":
            shutil.copytree(folder / "nothing" / "out", place / "out")
        if name == "a weight":
            weights[0, 0] += 1
            np.save("weights.npy", weights)
        elif change is not None:
            path, old, new = change
            text = (package / path).read_text()
            assert text.count(old) == 1, f"{path} holds {old!r} {text.count(old)} times"
            (package / path).write_text(text.replace(old, new))
        found[name] = in_fork(evaluate, package, place)
    print(json.dumps(found))


_IMPORTED_BEFORE_THE_FORKS = (nn, pyarrow.compute)

if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
