"""``smoothinfer serve``: from a model to an endpoint, refused early or stopped gracefully."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys

import pytest

from smoothinfer.cli import main
from smoothinfer.runtime.files import write_json
from smoothinfer.serving.capacity import _too_slow

pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
LINE = ["serve", "tests.conftest:noisy_line", "--port", "0"]
SHAPE = ["--shape", "1", "8", "8"]
CALIBRATION = {
    "sigma": 0.1,
    "rule": "prediction",
    "samples": 32,
    "stop": "value",
    "units": "pixel",
    "abstention": {"least share": {"0.01": None, "0.1": 0.6}},
}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "--shape C H W"),
        ([*SHAPE, "--budget", "0"], "budget must be above 0"),
        ([*SHAPE, "--budget", "0.001"], "does not get 16 passes within 0.0005 ms"),
        ([*SHAPE, "--abstain", "0.1"], "needs --calibration FILE"),
        ([*SHAPE, "--calibration", "none.json"], "none.json"),
        (["--shape", "3", "5", "5"], "the model does not take"),
        (["--shape", "0", "8", "8"], "shape must be at least 1"),
        ([*SHAPE, "--stop", "nonsense"], "unknown stop"),
        ([*SHAPE, "--stop", "ppr", "--rule", "soft"], "whole votes"),
        ([*SHAPE, "--pool", "64"], "leave --pool out"),
        ([*SHAPE, "--pool", "7"], "networks must be at least 32"),
        ([*SHAPE, "--port", "99999"], "port must be at most 65535"),
    ],
)
def test_what_cannot_be_served_is_refused_before_it_listens(more, message, capsys):
    assert main([*LINE, *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("single", "times", "enough"),
    [(42.3, "take 42.3 ms here: give --budget 102,", 102), (20.0, "at best, and other work", 60)],
)
def test_a_budget_that_is_too_short_names_one_that_suffices(single, times, enough):
    said = _too_slow(16, single, 50.0)
    assert times in said
    assert f"give --budget {enough}," in said


@pytest.mark.parametrize(
    ("host", "message"), [("127.0.0.1", "is taken: give --port"), ("no.such.host", "cannot listen")]
)
def test_a_port_that_cannot_be_had_is_refused_before_the_model_is_loaded(host, message, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["serve", "no_such_model", "--host", host, "--port", port]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "risk", "message"),
    [
        ({}, "0.01", "no share is known for a risk of 0.01, only for 0.1"),
        ({}, "0.3", "no share is known"),
        ({"units": "normalised"}, "0.1", "calibrate in pixel"),
        ({"rule": 3}, "0.1", "rule must be text"),
        ({"rule": "soft"}, "0.1", "made with rule soft, not prediction"),
        ({"samples": 64}, "0.1", "made with samples 64, not 32"),
        ({"sha256": None}, "1.5", "risk must be"),
        ({"abstention": {"least share": {"1.5": 1}}}, "0.1", "risk must be"),
        ({"abstention": {"least share": {"x": 1}}}, "0.1", "is no number"),
        ({"abstention": {"least share": {"0.1": 7}}}, "0.1", "least share"),
    ],
)
def test_calibrations_are_read_with_care(change, risk, message, tmp_path, capsys):
    file = tmp_path / "calibration.json"
    write_json(file, CALIBRATION | change)
    given = ["--calibration", str(file), "--rule", "prediction", "--samples", "32"]
    assert main([*LINE, *SHAPE, *given, "--abstain", risk]) == 2
    assert message in capsys.readouterr().err


def test_a_server_answers_and_stops_on_sigterm(tmp_path):
    file = tmp_path / "calibration.json"
    write_json(file, CALIBRATION)
    words = [*LINE, *SHAPE, "--budget", "500", "--calibration", str(file), "--abstain", "0.1"]
    started = [sys.executable, "-m", "smoothinfer", *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(started, stdout=pipe, stderr=subprocess.STDOUT, text=True) as process:
        said = ""
        for line in process.stdout:
            said += line
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                break
        assert "requests a second" in said
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        body = json.dumps({"image": [[[0.5] * 8] * 8]})
        connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        reply = json.loads(connection.getresponse().read())
        assert set(reply) >= {"label", "share", "abstained", "milliseconds"}
        connection.close()
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=30)[0]
        assert process.returncode in (0, 143)
        assert "Traceback" not in rest
