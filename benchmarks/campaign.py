"""Spend a few minutes of a GPU well.

``python -m benchmarks.campaign PLAN.yaml --data DATA --minutes 13 --out DIR``

A plan lists tasks in order of importance. Each runs as a process of its own, within the time that
is left, and its result is written the moment it is there. A training first runs two epochs to learn
what an epoch costs, then as many as fit. After every task all that must come back lies in
``DIR/back`` as parts of at most 16 MB: ``cat back.tar.* | tar x``. The same command goes on after
the last finished task.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks.archives import pack
from benchmarks.tasks import Outcome, Place, Plan, read_plan, run_task
from smoothinfer.errors import InputError
from smoothinfer.runtime.files import read_json, write_json

_RESERVE = 30.0  # seconds kept for the last task to stop, and for packing


class Campaign:
    """The tasks of a plan, run one after the other until the time is over.

    Args:
        plan: the tasks.
        place: folders, data and size of what runs.
        seconds: for all of it.
    """

    def __init__(self, plan: Plan, place: Place, seconds: float) -> None:
        self.plan, self.place, self.ends = plan, place, time.monotonic() + seconds
        place.out.mkdir(parents=True, exist_ok=True)
        self.record = place.out / "campaign.json"
        self.done: dict[str, dict[str, object]] = {}
        if self.record.exists():
            self.done = read_json(self.record)["tasks"]

    @property
    def left(self) -> float:
        """Seconds left, without those for packing."""
        return self.ends - time.monotonic() - _RESERVE

    def run(self) -> None:
        """Run every task that is not done yet."""
        for task in self.plan.tasks:
            if self.done.get(task.name, {}).get("state") == "done":
                continue
            print(f"{task.name}: {self.left:.0f} s left", flush=True)
            begun = time.monotonic()
            outcome = run_task(task, self.place, self.left)
            self.write(task.name, outcome, time.monotonic() - begun)

    def write(self, name: str, outcome: Outcome, seconds: float) -> None:
        """Write the record and pack what must come back."""
        self.done[name] = {"seconds": round(seconds, 1), **outcome.to_dict()}
        write_json(self.record, {"tasks": self.done})
        wanted = [self.record, *self.place.kept(self.plan)]
        pack(wanted, self.place.out / "back", root=self.place.out)
        print(f"{name}: {outcome.state} after {seconds:.0f} s {outcome.note}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run a plan; return 0 if every task was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--data", required=True, help="data of tasks that name none")
    parser.add_argument("--minutes", type=float, default=13.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--smoke", action="store_true", help="rehearse: tiny trainings, few images, no compiler"
    )
    options = parser.parse_args(arguments)
    try:
        plan = read_plan(options.plan)
        place = Place(options.out, options.data, options.smoke)
        campaign = Campaign(plan, place, 60 * options.minutes)
    except InputError as error:
        parser.error(str(error))
    campaign.run()
    return int(any(task["state"] != "done" for task in campaign.done.values()))


if __name__ == "__main__":
    raise SystemExit(main())
