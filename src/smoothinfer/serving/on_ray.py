"""The application on Ray Serve: the same one, in several processes, on one machine or many."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from fastapi import FastAPI

from smoothinfer.errors import InputError
from smoothinfer.runtime.signals import raise_if_stopped, stop_on_signals
from smoothinfer.runtime.terminal import Terminal

_INSTALL = "--ray needs Ray Serve: pip install 'smoothinfer[ray]'"
_POLL = 0.2  # seconds
_AUTO = "auto"  # as many as the load asks for, by Ray's own rule


def replicas_of(text: str) -> int | str:
    """Return the number of replicas that ``text`` asks for, or ``"auto"``.

    Raises:
        InputError: it is neither.

    >>> replicas_of("2"), replicas_of("auto")
    (2, 'auto')
    """
    if text == _AUTO:
        return text
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise InputError(f"--replicas must be a number of at least 1, or auto, not {text!r}")
    return int(text)


def serve_on_ray(
    build: Callable[[], FastAPI], name: str, host: str, port: int, replicas: int | str
) -> NoReturn:
    """Serve until a signal comes. Ray shares the requests out, and starts dead replicas again.

    A running cluster is used where ``RAY_ADDRESS`` names one; otherwise this machine alone.

    Args:
        build: makes the application, in each replica.
        name: of the application.
        host, port: where each machine listens.
        replicas: how many, or ``"auto"``.

    Raises:
        InputError: Ray Serve is not installed.
        Stop: a signal came.
    """
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise InputError(f"{_INSTALL} ({error})") from None

    def made_in_replica() -> FastAPI:  # Ray takes a function, and calls no other kind of builder
        return build()

    @serve.deployment(name="votes", num_replicas=replicas, ray_actor_options={"num_cpus": 1})
    @serve.ingress(made_in_replica)
    class Votes:
        """A replica."""

    ray.init(include_dashboard=False, log_to_driver=False, ignore_reinit_error=True)
    try:
        serve.start(http_options={"host": host, "port": port})
        bound = Votes.bind()  # type: ignore[attr-defined]
        serve.run(bound, name=name, route_prefix="/")
        Terminal().print(f"serving on http://{host}:{port}")
        with stop_on_signals():  # Ray has set handlers of its own
            while True:
                time.sleep(_POLL)
                raise_if_stopped()
    finally:
        serve.shutdown()
        ray.shutdown()
