"""HTTP under Uvicorn, mended: a head may take a while, and so many bytes, and no more; writes are gathered."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from orchestrator.server.gathering import Gathering
from orchestrator.server.limits import (
    FIRST_HEAD_SECONDS,
    HEAD_SECONDS,
    HEAD_TIMEOUT,
    HEAD_TOO_LARGE,
    HEADERS_BYTES,
)


class Http(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # one of two classes, whichever is installed
    """One connection while it speaks HTTP. Between two requests Uvicorn's own keep-alive limit holds."""

    _head: asyncio.TimerHandle | None = None
    _head_bytes = 0  # received of a head that is not complete
    _upgraded = False
    _ending = False

    def connection_made(self, transport: Any) -> None:
        """Gather what is written, that of a WebSocket too, and begin to wait for the first head."""
        super().connection_made(Gathering(transport, self.loop))
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what the client sent: part of a head, or of a request that is being served."""
        super().data_received(data)
        if self._ending and self.cycle is not None:
            self.cycle.keep_alive = False
        if self.cycle is not None and not self.cycle.response_complete:
            self._have_head()
        elif not self._upgraded and not self.transport.is_closing():
            self._wait_for_head()
            if self.cycle is not None and self.cycle.more_body:
                return  # the rest of a body, of a request that was answered sooner
            self._head_bytes += len(data)
            if self._head_bytes > HEADERS_BYTES:
                self._refuse(HEAD_TOO_LARGE)

    def handle_websocket_upgrade(self, *args: Any) -> None:
        """Let go of the connection."""
        self._have_head()
        self._upgraded = True
        super().handle_websocket_upgrade(*args)

    def shutdown(self) -> None:
        """End when the response that is under way is over, or at once; but a first request is waited for."""
        if self.cycle is None and not self._ending:
            self._ending = True
            self.loop.call_later(FIRST_HEAD_SECONDS, self.shutdown)
        else:
            super().shutdown()

    def _wait_for_head(self) -> None:
        if self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _have_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
        self._head_bytes = 0

    def _give_up(self) -> None:
        self._refuse(HEAD_TIMEOUT if self._head_bytes else b"")

    def _refuse(self, answer: bytes) -> None:
        self.transport.write(answer)
        self.transport.close()
