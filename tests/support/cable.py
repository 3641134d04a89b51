"""A cable between a runner and an engine: bytes pass through it until it is pulled out."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

PIECE_BYTES = 65_536


class Cable:
    """Forwards TCP connections to the server at `target_url`; `url` is its near end.

    Pulled out, it cuts what is open, and whoever connects hears nothing until it is plugged in again.
    """

    def __init__(self, target_url: str) -> None:
        target = urlsplit(target_url)
        assert target.hostname is not None
        assert target.port is not None
        self._target = (target.hostname, target.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._change = threading.Condition()
        self._open: set[socket.socket] = set()
        self._plugged = True
        self._in_use = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="cable", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._change:
            self._in_use = False
        self.pull()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def pull(self) -> None:
        """Cut every connection, and let none through until `plug`."""
        with self._change:
            self._plugged = False
            self._change.notify_all()
            for end in self._open:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def plug(self) -> None:
        """Let connections through again."""
        with self._change:
            self._plugged = True
            self._change.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), name="cable", daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with self._change:
            self._change.wait_for(lambda: self._plugged or not self._in_use)
        with near, suppress(OSError), socket.create_connection(self._target) as far:
            ends = {near, far}
            with self._change:
                if not self._plugged:
                    return
                self._open |= ends
            try:
                there = threading.Thread(target=_carry, args=(near, far), name="cable", daemon=True)
                there.start()
                _carry(far, near)
                there.join()
            finally:
                with self._change:
                    self._open -= ends


def _carry(source: socket.socket, target: socket.socket) -> None:
    """Forward until either end closes, and close the other with it."""
    with suppress(OSError):
        while piece := source.recv(PIECE_BYTES):
            target.sendall(piece)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
