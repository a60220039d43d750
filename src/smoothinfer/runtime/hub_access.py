"""Whether the Hugging Face hub can be reached, asked once before its libraries try many times."""

import contextlib
import socket
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

_SECONDS = 3.0


def hub_answers() -> bool:
    """Say whether a connection to the hub opens; through a proxy it is taken to."""
    from huggingface_hub import constants

    if urllib.request.getproxies():
        return True
    place = urlsplit(constants.ENDPOINT)
    address = place.hostname or "", place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection(address, _SECONDS).close()
    except OSError:
        return False
    return True


@contextlib.contextmanager
def offline_unless_reachable() -> Iterator[bool]:
    """Inside, the hub's libraries use only their cache where the hub cannot be reached.

    Else they try five times, for half a minute. Gives whether the hub is used.
    """
    from huggingface_hub import constants

    loaded = sys.modules.get("datasets")  # slow to import, and not needed for models
    places: list[Any] = [constants, *([loaded.config] if loaded else [])]
    before = [place.HF_HUB_OFFLINE for place in places]
    online = not any(before) and hub_answers()
    for place in places:
        place.HF_HUB_OFFLINE = not online
    try:
        yield online
    finally:
        for place, offline in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = offline
