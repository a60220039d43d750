"""Measure everything side by side and write tables: ``python -m benchmarks --data DATA``.

Without data, speeds alone; with it, how cost grows, what stopping saves and what bfloat16 changes.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import torch

from benchmarks import behaviour, peers
from benchmarks.speed import BACKBONES, COMPILED, SECTIONS, Benchmarks, report
from smoothinfer.runtime.processes import tune_malloc


def main() -> None:
    """Measure, print, and write ``speed.md`` and ``speed.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--data", help="also measure behaviour, see benchmarks.behaviour")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sections", nargs="*", choices=SECTIONS + COMPILED + BACKBONES)
    parser.add_argument("--precision", default="auto", choices=("auto", "bf16", "fp32"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    peers.silent()
    tune_malloc()
    found = Benchmarks(options).run()
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    (options.out / "speed.md").write_text(report(found))
    if options.data:
        behaviour.main([*behaviour.PARTS, "--data", options.data, "--out", str(options.out)])


if __name__ == "__main__":
    main()
