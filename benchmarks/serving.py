"""Latency of the endpoint: at the rate that it says it holds, and at three times that rate.

``python -m benchmarks.serving MODEL --data DATA``

Requests arrive at equal distances whether earlier ones are answered or not. Each image is its own
truth: its answer is compared with the vote of many passes, so that none can be lost or swapped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import smoothinfer as si
from benchmarks.clock import machine

_REQUESTS, _PATIENCE = 1000, 60.0
_HEAD = (
    "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {}\r\n"
    "Connection: close\r\n\r\n"
)


@dataclass
class Outcome:
    """What came back: milliseconds of the answers, and how many requests were refused."""

    milliseconds: list[float] = field(default_factory=list)
    agree: int = 0
    refused: int = 0
    lost: int = 0

    def summary(self, rate: float, budget: float) -> dict[str, Any]:
        """Return the figures: quantiles in milliseconds, shares of the requests."""
        times = np.array(self.milliseconds or [np.nan])
        late = budget + 10
        return {
            "rate": rate,
            "answered": len(self.milliseconds),
            "refused": self.refused,
            "lost": self.lost,
            "agree with the vote of 512": self.agree / max(1, len(self.milliseconds)),
            "median ms": float(np.median(times)),
            "99 % ms": float(np.quantile(times, 0.99)),
            f"within {late:g} ms": float((times <= late).mean()),
        }


@contextlib.contextmanager
def served(
    model: str, budget: float, more: list[str]
) -> Iterator[tuple[int, float, subprocess.Popen[str]]]:
    """Start the server; yield port, requests a second that it says it holds, and process."""
    words = ["serve", model, "--port", "0", "--budget", f"{budget:g}", *more]
    with subprocess.Popen(
        [sys.executable, "-m", "smoothinfer", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        rate, port = None, None
        said = []
        for line in process.stdout:
            said.append(line)
            if found := re.search(r"([\d,]+) requests a second", line):
                rate = float(found[1].replace(",", ""))
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
                break
        if rate is None or port is None:
            raise SystemExit(f"the server did not start: {''.join(said)}")
        # Its log must not fill the pipe.
        threading.Thread(target=process.stdout.read, daemon=True).start()
        try:
            yield port, rate, process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


async def load(
    port: int, rate: float, bodies: list[bytes], truth: list[int], requests: int
) -> Outcome:
    """Send ``requests`` at ``rate`` a second, each on a connection of its own."""
    outcome = Outcome()

    async def ask(number: int) -> None:
        body = bodies[number % len(bodies)]
        head = _HEAD.format(len(body))
        begun = time.perf_counter()
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            reply = await asyncio.wait_for(reader.read(), _PATIENCE)
            writer.close()
        except (TimeoutError, OSError):
            outcome.lost += 1
            return
        status, content = int(reply.split(b" ", 2)[1]), reply.partition(b"\r\n\r\n")[2]
        if status == 503:
            outcome.refused += 1
        elif status == 200:
            outcome.milliseconds.append(1000 * (time.perf_counter() - begun))
            outcome.agree += json.loads(content)["label"] == truth[number % len(truth)]
        else:
            outcome.lost += 1

    begun, tasks = time.perf_counter(), []
    for number in range(requests):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        tasks.append(asyncio.create_task(ask(number)))
    await asyncio.gather(*tasks)
    return outcome


def encoded(images: si.ImageData) -> list[bytes]:
    """Return each image as a PNG."""
    found = []
    for pixels in images.pixels:
        file = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy().squeeze()).save(file, "png")
        found.append(file.getvalue())
    return found


def main() -> None:
    """Measure, print, and write ``serving.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="cni-w-resnet20-cifar10")
    parser.add_argument("--data", default="uoft-cs/cifar10")
    parser.add_argument("--budget", type=float, default=50.0)
    parser.add_argument("--requests", type=int, default=_REQUESTS)
    parser.add_argument("--pool", type=int)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    data = si.load_data(options.data, "test", 200, first=True)
    vote = si.SmoothedClassifier(si.load(options.model), 512, seed=0).predict(data.images)
    more = [] if options.pool is None else ["--pool", str(options.pool)]
    table: dict[str, Any] = {"model": options.model, "budget": options.budget, "pool": options.pool}
    with served(options.model, options.budget, more) as (port, rate, _):
        asyncio.run(load(port, rate / 2, encoded(data), vote.labels.tolist(), 100))  # warm
        for name, factor in (("at its rate", 1), ("at three times its rate", 3)):
            given = (port, factor * rate, encoded(data), vote.labels.tolist(), options.requests)
            table[name] = asyncio.run(load(*given)).summary(factor * rate, options.budget)
            print(name, json.dumps(table[name]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    table["machine"] = machine("cpu")
    (options.out / "serving.json").write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
