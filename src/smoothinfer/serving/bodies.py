"""The bodies of requests: read within limits of size, of time, and of memory for all together."""

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request

from smoothinfer.serving.batcher import BusyError

_DRAINED = 64 * 2**20  # bytes of a refused body that are read, so that its sender gets the answer


class RefusedError(Exception):
    """A request that gets an error: its status and one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BodyReader:
    """Reads bodies, each and all together of bounded size.

    Args:
        most: bytes of a body.
        seconds: that an upload may take.
        together: bytes of all bodies that are being read.
    """

    def __init__(self, most: int, seconds: float, together: int) -> None:
        self.most, self.seconds, self.together = most, seconds, together
        self.held = 0

    async def read(self, request: Request) -> bytes:
        """Return the body of ``request``.

        Raises:
            RefusedError: it is empty, too long or too slow.
            BusyError: too many bytes are being read already.
        """
        told = request.headers.get("content-length", "0")
        try:
            async with asyncio.timeout(self.seconds):
                stream = request.stream()
                if told.isdigit() and int(told) > self.most:
                    await _drain(stream, int(told))
                    raise self._too_long(f"{int(told):,}")
                return await self._collect(stream)
        except TimeoutError:
            why = f"the upload took more than {self.seconds:g} seconds"
            raise RefusedError(408, why) from None

    async def _collect(self, stream: AsyncIterator[bytes]) -> bytes:
        body = bytearray()
        refused: Exception | None = None
        try:
            async for part in stream:
                body += part
                self.held += len(part)
                if len(body) > self.most:
                    refused = self._too_long(f"more than {self.most:,}")
                elif self.held > self.together:
                    refused = BusyError("too many uploads wait already: try again later")
                if refused:
                    break
        finally:
            self.held -= len(body)
        if refused:
            body.clear()
            await _drain(stream, 0)
            raise refused
        if not body:
            raise RefusedError(400, "the body is empty: send a picture, or JSON")
        return bytes(body)

    def _too_long(self, size: str) -> RefusedError:
        return RefusedError(413, f"the body has {size} bytes, {self.most:,} is the most")


async def _drain(stream: AsyncIterator[bytes], told: int) -> None:
    """Read the rest of a body, unless it is very long: an answer amid it would be lost."""
    if told > _DRAINED:
        return
    read = 0
    async for part in stream:
        read += len(part)
        if read > _DRAINED:
            return
