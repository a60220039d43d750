"""The hub is asked once, and its cache used where it does not answer."""

import socket
import time

import pytest

import smoothinfer as si
from smoothinfer.runtime.hub_access import hub_answers, offline_unless_reachable

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def address(monkeypatch):
    """A port of this machine at which the hub is looked for, without a proxy."""
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        yield server


def test_a_port_that_listens_answers(address):
    assert not hub_answers()
    address.listen()
    assert hub_answers()


def test_behind_a_proxy_the_hub_is_taken_to_answer(address, monkeypatch):
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"})
    assert hub_answers()


def test_libraries_are_offline_inside_only(address):
    before = constants.HF_HUB_OFFLINE
    with offline_unless_reachable() as online:
        assert not online
        assert constants.HF_HUB_OFFLINE
    assert before == constants.HF_HUB_OFFLINE


@pytest.mark.parametrize("ask", [lambda: si.load_data("no/such"), lambda: si.load("hf:no/such")])
def test_a_name_that_nothing_here_has_is_refused_at_once(address, ask):
    begun = time.monotonic()
    with pytest.raises(si.InputError, match="out of reach"):
        ask()
    assert time.monotonic() - begun < 20  # its libraries alone try for half a minute
