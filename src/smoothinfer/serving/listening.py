"""The socket of the server, bound before the model is loaded and its capacity measured."""

import errno
import os
import socket

from smoothinfer.errors import InputError


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound and does not listen yet: until it does, clients are refused.

    Raises:
        InputError: the port is taken or out of range, or there is no such address here.

    >>> with bound_socket("127.0.0.1", 0) as bound:
    ...     bound.getsockname()[1] > 0
    True
    """
    if not 0 <= port < 2**16:
        raise InputError(f"port must be at most 65535, not {port}")
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if os.name == "posix":  # a port just left is free again; elsewhere this would share a port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        raise _refusal(error, host, port) from None
    return bound


def start_listening(bound: socket.socket) -> None:
    """Let clients connect.

    Raises:
        InputError: another server, bound at the same time, has begun before.
    """
    try:
        bound.listen()
    except OSError as error:
        raise _refusal(error, *bound.getsockname()[:2]) from None


def _refusal(error: OSError, host: str, port: int) -> InputError:
    if error.errno != errno.EADDRINUSE:
        return InputError(f"cannot listen on {host}, port {port}: {error.strerror}")
    other = port + 1 if port < 2**16 - 1 else port - 1
    return InputError(f"port {port} is taken: give --port {other}, or 0 for a free one")
