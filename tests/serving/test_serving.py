"""The server, asked by a real client over loopback: right answers in time, clear errors."""

import http.client
import io
import json
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image
from torch import nn

import smoothinfer as si

uvicorn = pytest.importorskip("uvicorn", reason="the extra 'serve' is not installed")
from smoothinfer.serving.application import Service, make_application  # noqa: E402
from smoothinfer.serving.batcher import Batcher  # noqa: E402
from smoothinfer.serving.uploads import read_upload  # noqa: E402

SHAPE = (3, 8, 8)
CLASSES = tuple(f"level {k}" for k in range(10))
JSON = {"Content-Type": "application/json"}


class Level(nn.Module):
    """The mean of an image, in tenths: every image carries its own truth."""

    def forward(self, images):
        return -(10 * images.mean((1, 2, 3))[:, None] - torch.arange(10) - 0.5).abs()


class Serving:
    """A server on a free port, in a thread."""

    def __init__(self, answer, most=64, budget=200.0, **service):
        app = make_application(
            Service("level", CLASSES, SHAPE, **service), Batcher(answer, most, budget)
        )
        config = uvicorn.Config(app, "127.0.0.1", 0, log_level="error", lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()  # a graceful stop

    def ask(self, method, path, body=None, headers=None, timeout=20):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            reply = connection.getresponse()
            content = reply.read().decode()
            kind = reply.getheader("content-type", "")
            return reply.status, json.loads(content) if "json" in kind else content
        finally:
            connection.close()

    def predict(self, body, kind="application/json"):
        return self.ask("POST", "/predict", body, {"Content-Type": kind})


def voting(samples=16):
    smooth = si.SmoothedClassifier(si.NoisyModel(Level(), inputs=si.Gaussian(0.02)).eval(), samples)
    return lambda images, left: smooth.predict(images, budget_ms=left)


@pytest.fixture(scope="module")
def server():
    with Serving(voting()) as running:
        yield running


def flat(level):
    """JSON of an image of one grey, and its truth."""
    value = (level + 0.5) / 10
    return json.dumps({"image": [[[value] * 8] * 8] * 3}).encode(), level


def picture(level, form="PNG", size=(8, 8)):
    held = io.BytesIO()
    grey = round(255 * (level + 0.5) / 10)
    Image.new("RGB", size, (grey,) * 3).save(held, form)
    return held.getvalue()


def noise_picture():
    held = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(held, "PNG")
    return held.getvalue()


def test_json_is_answered_with_a_vote(server):
    status, found = server.predict(flat(3)[0])
    assert status == 200
    assert (found["label"], found["name"]) == (3, "level 3")
    assert 0 <= found["low"] <= found["share"] <= found["high"] <= 1
    assert found["samples"] == 16
    assert found["runner_up"] != 3
    assert found["abstained"] is False
    assert found["milliseconds"] > 0


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(8, 8), (8, 20), (100, 30)])
def test_pictures_of_any_size_are_answered(server, form, size):
    status, found = server.predict(picture(7, form, size), f"image/{form.lower()}")
    assert (status, found["label"]) == (200, 7)


def test_health_metrics_docs_and_page(server):
    status, found = server.ask("GET", "/health")
    assert status == 200
    assert found["status"] == "ok"
    assert found["classes"] == list(CLASSES)
    server.predict(flat(1)[0])
    status, text = server.ask("GET", "/metrics")
    assert 'smoothinfer_requests_total{status="200"}' in text
    assert "smoothinfer_passes_total" in text
    assert server.ask("GET", "/docs")[0] == 200
    assert "/predict" in server.ask("GET", "/openapi.json")[1]["paths"]
    status, page = server.ask("GET", "/")
    assert status == 200
    assert "http://" not in page  # nothing comes from elsewhere
    assert "https://" not in page


BAD = {
    "nothing": (b"", "application/json", 400, "empty"),
    "no json": (b"{", "application/json", 422, "no JSON"),
    "deep json": (b'{"image": ' + b"[" * 10**5, "application/json", 422, "no JSON"),
    "another key": (b'{"x": 1}', "application/json", 422, '"image"'),
    "no list": (b'{"image": 3}', "application/json", 422, '"image"'),
    "shape": (b'{"image": [[[0.5]]]}', "application/json", 422, "the model takes (3, 8, 8)"),
    "ragged": (b'{"image": [[[0.5], [0.5, 1]]]}', "application/json", 422, "differ in length"),
    "words": (flat(1)[0].replace(b"0.15", b'"a"'), "application/json", 422, "must be numbers"),
    "range": (flat(1)[0].replace(b"0.15", b"1.5"), "application/json", 422, "lie in [0, 1]"),
    "huge": (flat(1)[0].replace(b"0.15", b"9" * 401), "application/json", 422, "lie in [0, 1]"),
    "script": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "image/png", 422, "cannot be"),
    "NaN": (flat(1)[0].replace(b"0.15", b"NaN"), "application/json", 422, "lie in [0, 1]"),
    "text": (b"hello", "text/plain", 422, "is not served"),
    "no picture": (b"hello", "image/png", 422, "cannot be read as a picture"),
    "half a picture": (noise_picture()[:3000], "image/png", 422, "cannot be read as a picture"),
    "another kind": (picture(1, "JPEG"), "image/png", 422, "cannot be read as a picture"),
    "too long": (bytes(9 * 2**20), "image/png", 413, "is the most"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_get_one_clear_line(server, name):
    body, kind, expected, message = BAD[name]
    status, found = server.predict(body, kind)
    assert status == expected
    assert message in found["error"]
    assert "\n" not in found["error"]
    assert server.predict(flat(2)[0])[1]["label"] == 2  # and the server goes on


def test_an_upload_without_an_end_is_cut(server):
    with Serving(voting(), seconds=0.3) as slow:
        with socket.create_connection(("127.0.0.1", slow.port), timeout=5) as line:
            head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            line.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
            assert b" 408 " in line.recv(1000)
        with socket.create_connection(("127.0.0.1", slow.port), timeout=5) as line:
            line.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())  # and goes away
        assert slow.predict(flat(4)[0])[1]["label"] == 4


def test_a_model_that_fails_gets_500_and_the_next_image_an_answer():
    vote, broken = voting(), [True]

    def answer(images, left):
        if broken.pop() if broken else False:
            raise RuntimeError("secret path /home/x")
        return vote(images, left)

    with Serving(answer) as running:
        status, found = running.predict(flat(5)[0])
        assert status == 500
        assert "secret" not in found["error"]
        assert running.predict(flat(5)[0])[1]["label"] == 5


def test_an_image_on_which_the_model_fails_harms_no_other_of_its_batch():
    vote, gate = voting(4), threading.Event()

    def answer(images, left):
        gate.wait(5)
        if (images.mean((1, 2, 3)) > 0.9).any():
            raise si.InputError("the model returned NaN")
        return vote(images, left)

    with Batcher(answer, most=8, budget_ms=1000) as batcher:
        waiting = [batcher.submit(torch.full(SHAPE, (k + 0.5) / 10)) for k in (1, 9, 3)]
        gate.set()
        assert [int(waiting[k].result(5)[0].labels) for k in (0, 2)] == [1, 3]
        with pytest.raises(si.InputError):
            waiting[1].result(5)


def test_a_picture_of_another_kind_than_its_content_type_is_named():
    held = io.BytesIO()
    Image.new("L", (8, 8)).save(held, "WEBP")
    with pytest.raises(si.InputError, match="picture of type image/png: send the content type"):
        read_upload("image/png", held.getvalue(), SHAPE)


def test_a_photograph_with_a_preview_is_a_jpeg():
    held = io.BytesIO()
    first, second = (Image.new("RGB", (8, 8), (grey,) * 3) for grey in (115, 10))
    first.save(held, "MPO", save_all=True, append_images=[second])
    image = read_upload("image/jpeg", held.getvalue(), SHAPE)
    assert torch.allclose(image, torch.full(SHAPE, 115 / 255), atol=0.02)


def test_no_answer_is_lost_or_swapped_among_many(server):
    levels = [random.Random(0).randrange(10) for _ in range(1000)]

    def ask(level):
        while True:
            status, found = server.predict(flat(level)[0])
            if status != 503:
                return found["label"]
            time.sleep(0.01)

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, levels)) == levels


@pytest.mark.slow
def test_no_answer_is_lost_or_swapped_among_ten_thousand(server):
    levels = [random.Random(1).randrange(10) for _ in range(10_000)]
    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(lambda level: server.predict(flat(level)[0]), levels))
    answered = [
        (each["label"], level)
        for (status, each), level in zip(found, levels, strict=True)
        if status == 200
    ]
    assert all(label == level for label, level in answered)
    assert all(status in (200, 503) for status, _ in found)
    assert len(answered) > 5000


def test_more_than_can_be_answered_in_time_gets_503_and_the_rest_is_in_time():
    vote = voting(2)
    vote(torch.rand(4, *SHAPE), 1000.0)  # plans are made once

    def slow(images, left):
        time.sleep(0.05)
        return vote(images, 1000.0)

    for _ in range(3):  # a busy machine may hold up everything for a moment
        with Serving(slow, most=4, budget=120.0) as running, ThreadPoolExecutor(40) as pool:
            found = list(pool.map(running.predict, [flat(6)[0]] * 120))
        refused = [each for status, each in found if status == 503]
        answered = [each for status, each in found if status == 200]
        assert refused
        assert "wait already" in refused[0]["error"]
        assert answered
        assert all(each["label"] == 6 for each in answered)
        late = [each["milliseconds"] for each in answered if each["milliseconds"] > 120 + 40]
        if len(late) <= 0.05 * len(answered):
            return
    pytest.fail(f"late three times, lastly by {late} of {len(answered)}")


def test_a_batcher_answers_what_waits_before_it_ends():
    taken = threading.Event()

    def answer(images, left):
        taken.wait(5)
        return voting(4)(images, left)

    with Batcher(answer, most=8, budget_ms=1000) as batcher:
        waiting = [batcher.submit(torch.full(SHAPE, (k + 0.5) / 10)) for k in range(5)]
        taken.set()
    assert [int(each.result(1)[0].labels) for each in waiting] == list(range(5))
    assert batcher.images == 5


def test_uploads_become_images_of_the_models_shape():
    for shape in ((1, 8, 8), (3, 8, 8), (3, 5, 9)):
        image = read_upload("image/png", picture(4, size=(31, 17)), shape)
        assert image.shape == shape
        assert image.dtype == torch.float32
        assert torch.allclose(image, torch.full(shape, 115 / 255), atol=1e-6)
