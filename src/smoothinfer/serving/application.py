"""The application: `POST /predict`, `GET /health`, `/metrics`, `/docs`, and a page at `/`."""

import asyncio
import contextlib
import io
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from PIL import Image
from starlette.requests import ClientDisconnect
from torch import Tensor

from smoothinfer.engine.prediction import Prediction
from smoothinfer.errors import InputError
from smoothinfer.serving.batcher import Batcher, BusyError
from smoothinfer.serving.bodies import BodyReader, RefusedError
from smoothinfer.serving.uploads import PICTURES, read_upload

_LOG = logging.getLogger("smoothinfer.serving")
_BODIES = 8  # of the largest size that are read at a time; of smaller ones more
_LATENCIES = (5, 10, 20, 50, 100, 200, 500, 1000)  # milliseconds, of the histogram


@dataclass(frozen=True)
class Service:
    """What is served.

    Attributes:
        name: of the model.
        classes: their names.
        shape: (C, H, W) of an image.
        most_bytes: of a request.
        seconds: that an upload may take.
        warm: answer a few images before the first request.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    most_bytes: int = 8 * 2**20
    seconds: float = 10.0
    warm: bool = False


class Counts:
    """What ``/metrics`` tells."""

    def __init__(self) -> None:
        self.answers: dict[int, int] = {}
        self.latencies = [0] * (len(_LATENCIES) + 1)
        self.milliseconds = 0.0

    def answered(self, status: int, milliseconds: float | None = None) -> None:
        """Count an answer with its status, and the time that a verdict took."""
        self.answers[status] = self.answers.get(status, 0) + 1
        if milliseconds is not None:
            place = sum(milliseconds > limit for limit in _LATENCIES)
            self.latencies[place] += 1
            self.milliseconds += milliseconds

    def text(self, batcher: Batcher) -> str:
        """Return the metrics in Prometheus' text format."""
        lines = ["# TYPE smoothinfer_requests_total counter"]
        for status, count in sorted(self.answers.items()):
            lines.append(f'smoothinfer_requests_total{{status="{status}"}} {count}')
        lines.append("# TYPE smoothinfer_milliseconds histogram")
        total = 0
        for limit, count in zip((*_LATENCIES, "+Inf"), self.latencies, strict=True):
            total += count
            lines.append(f'smoothinfer_milliseconds_bucket{{le="{limit}"}} {total}')
        lines += [f"smoothinfer_milliseconds_sum {self.milliseconds:.3f}"]
        lines += [f"smoothinfer_milliseconds_count {total}"]
        for name in ("batches", "images", "passes"):
            lines.append(f"# TYPE smoothinfer_{name}_total counter")
            lines.append(f"smoothinfer_{name}_total {getattr(batcher, name)}")
        lines += ["# TYPE smoothinfer_waiting gauge", f"smoothinfer_waiting {batcher.length}"]
        return "\n".join(lines) + "\n"


def make_application(service: Service, batcher: Batcher) -> FastAPI:
    """Return the application; it starts and stops ``batcher``.

    Args:
        service: what is served.
        batcher: answers batches of images.
    """
    counts, begun, reader = Counts(), time.time(), _Reader(service, 2 * batcher.most)
    bodies = BodyReader(service.most_bytes, service.seconds, _BODIES * service.most_bytes)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with batcher:
            if service.warm:
                await asyncio.to_thread(_warm_up, service, batcher)
            yield

    app = FastAPI(title=f"smoothinfer: {service.name}", lifespan=lifespan)
    page = files("smoothinfer.serving").joinpath("page.html").read_text()

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show_page() -> str:
        return page

    @app.get("/health")
    async def health() -> dict[str, Any]:
        about = {"status": "ok", "model": service.name, "shape": list(service.shape)}
        return about | {
            "classes": list(service.classes),
            "seconds": round(time.time() - begun),
            "process": os.getpid(),
        }

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> str:
        return counts.text(batcher)

    @app.post("/predict", openapi_extra=_BODY)
    async def predict(request: Request) -> JSONResponse:
        try:
            content = await bodies.read(request)
            arrived = time.monotonic()
            kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
            image = await reader.read(kind, content)
            found, milliseconds = await asyncio.wrap_future(batcher.submit(image, arrived))
        except RefusedError as error:
            return _refuse(counts, error.status, str(error))
        except BusyError as error:
            return _refuse(counts, 503, str(error), {"Retry-After": "1"})
        except ClientDisconnect:
            return _refuse(counts, 499, "the client went away")  # nobody reads it
        except Exception:
            _LOG.exception("a vote failed")
            return _refuse(counts, 500, "the model failed on this image; the log says how")
        counts.answered(200, milliseconds)
        return JSONResponse(answer_of(found, service) | {"milliseconds": round(milliseconds, 2)})

    return app


def _warm_up(service: Service, batcher: Batcher) -> None:
    """Answer a picture of every kind, so that no request waits for imports, threads and plans."""
    channels, height, width = service.shape
    for kind, (form, *_) in PICTURES.items() if channels in (1, 3) else ():
        held = io.BytesIO()
        Image.new("RGB", (width, height)).save(held, form)
        read_upload(kind, held.getvalue(), service.shape)
    for _ in range(3):
        found, _ = batcher.submit(torch.rand(service.shape)).result()
        answer_of(found, service)
    batcher.batches = batcher.images = batcher.passes = 0


class _Reader:
    """Decodes uploads in threads, a few at a time.

    Args:
        service: what is served.
        most: uploads that may be decoded or wait for it.
    """

    def __init__(self, service: Service, most: int) -> None:
        self.service, self.most, self.now = service, most, 0

    async def read(self, kind: str, content: bytes) -> Tensor:
        """Return the image of an upload.

        Raises:
            RefusedError: it holds none that the model takes.
            BusyError: too many uploads wait.
        """
        if self.now >= self.most:
            raise BusyError(f"{self.most} uploads wait already: try again later")
        self.now += 1
        try:
            return await asyncio.to_thread(read_upload, kind, content, self.service.shape)
        except InputError as error:
            raise RefusedError(422, str(error)) from error
        finally:
            self.now -= 1


def answer_of(found: Prediction, service: Service) -> dict[str, Any]:
    """Return the verdict on one image as plain values."""
    label, (low, high) = int(found.labels), found.share_interval()[0].tolist()
    return {
        "label": label,
        "name": service.classes[label],
        "share": float(found.share),
        "low": low,
        "high": high,
        "runner_up": int(found.runner_up),
        "samples": int(found.samples),
        "abstained": bool(found.abstained),
    }


def _refuse(
    counts: Counts, status: int, message: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    counts.answered(status)
    return JSONResponse({"error": message}, status, headers)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "image/jpeg": {"schema": {"type": "string", "format": "binary"}},
            "image/webp": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "items": {"type": "array"}}},
                }
            },
        },
    }
}
