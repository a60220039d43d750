"""The application on Ray Serve: two replicas answer alike, and a dead one costs no answer."""

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import torch

import smoothinfer as si
from smoothinfer.cli import main

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
LINE = ["serve", "tests.conftest:noisy_line", "--shape", "1", "8", "8", "--budget", "500"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url, content=None, timeout=20):
    request = urllib.request.Request(url, content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=timeout) as reply:
        return json.loads(reply.read())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--replicas", "2"], "give --ray too"),
        (["--ray", "--replicas", "0"], "--replicas must be a number"),
        (["--ray", "--replicas", "many"], "--replicas must be a number"),
        (["--ray", "--port", "0"], "--port of your choice"),
    ],
)
def test_wrong_arguments_are_refused(more, message, capsys):
    assert main([*LINE, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*LINE, "--ray", "--port", "8000"]) == 2
    assert "smoothinfer[ray]" in capsys.readouterr().err


def sure_images():
    """Images of which a vote is sure, and its answers to them."""
    many = torch.rand(2000, 1, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    logits = si.load("tests.conftest:noisy_line").module(many).topk(2).values
    best = (logits[:, 0] - logits[:, 1]).argsort(descending=True)[:4]
    shown = many[best]
    return shown, si.load("tests.conftest:noisy_line").module(shown).argmax(1).tolist()


@pytest.fixture
def served(tmp_path):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    port = free_port()
    words = [sys.executable, "-m", "smoothinfer", *LINE, "--ray", "--replicas", "2"]
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [*words, "--port", str(port)], stdout=file, stderr=subprocess.STDOUT
        )
    until = time.monotonic() + 120
    try:
        while "serving on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (0, 143)
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()


@pytest.mark.slow
def test_replicas_answer_alike_and_one_may_die(served):
    """Each image carries its own truth: answers are right, whichever replica gives them."""
    shown, truth = sure_images()
    images = [json.dumps({"image": image.tolist()}).encode() for image in shown]
    assert [ask(f"{served}/predict", image)["label"] for image in images] == truth
    seen = {ask(f"{served}/health")["process"] for _ in range(60)}
    assert len(seen) == 2

    answered, failed = [], 0

    def question(number):
        with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            return number % 4, ask(f"{served}/predict", images[number % 4])["label"]
        return None

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(question, number) for number in range(150)]
        os.kill(next(iter(seen)), signal.SIGKILL)
        futures += [pool.submit(question, number) for number in range(150)]
        for future in futures:
            if (found := future.result()) is None:
                failed += 1
            else:
                answered.append(found)
    assert failed <= 30  # those that the dead one had taken, which their client asks again
    assert all(label == truth[place] for place, label in answered)
    until = time.monotonic() + 60
    alive = set()
    while len(alive) < 2:  # Ray starts another
        assert time.monotonic() < until
        time.sleep(1)
        with contextlib.suppress(urllib.error.HTTPError):
            alive = {ask(f"{served}/health")["process"] for _ in range(60)}
    assert alive != seen
