"""A cable between a runner and the engine: it can be cut, plugged in elsewhere, or go dead without a sign."""

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

CHUNK_BYTES = 64 * 1024


class Relay:
    """Passes on connections to one port of loopback. `url` is where to connect instead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._passing = threading.Event()
        self._passing.set()
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends the waiting for connections
        self._listener.close()
        self.revive()
        self.cut()
        for thread in self._threads:
            thread.join()

    def lead_to(self, port: int) -> None:
        """Connect to that port from now on; connections that are open stay where they are."""
        self._port = port

    def cut(self) -> None:
        """Break off every connection, without a goodbye."""
        with self._lock:
            ends, self._ends = self._ends, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def go_dead(self) -> None:
        """Pass nothing on any more, in either direction, with every connection left open."""
        self._passing.clear()

    def revive(self) -> None:
        """Pass on again, first of all what has come meanwhile."""
        self._passing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed in the end
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._port))
                except OSError:
                    near.close()
                    continue
                with self._lock:
                    self._ends += [near, far]
                self._run(self._join, near, far)

    def _run(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """Pass on both ways until both ends are closed."""
        with near, far:
            back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
            back.start()
            self._pump(near, far)
            back.join()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._passing.wait()
                target.sendall(data)
        self._passing.wait()  # a dead cable tells nobody that the other end is gone
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
