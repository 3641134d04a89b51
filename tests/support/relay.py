"""A cable between two processes: it can be cut, plugged in elsewhere, slow, or go dead without a sign."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

CHUNK_BYTES = 64 * 1024
Way = Literal["there", "back"]


class Relay:
    """Passes on connections to one port of loopback; `url` is where to connect instead.

    Between unix sockets, if both ends are paths: then `near` is where to connect instead.
    """

    def __init__(self, target: int | Path, near: Path | None = None) -> None:
        self._targets: tuple[int | Path, ...] = (target,)
        if near is None:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        else:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(near))
            self._listener.listen(128)
        self._delay_seconds = 0.0
        self._delayed_way: Way | None = None  # None: both
        self._delayed_connection: socket.socket | None = None  # by its near end; None: all
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

    def lead_to(self, *ports: int) -> None:
        """Connect to the first of these ports that listens; connections that are open stay where they are."""
        self._targets = ports

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

    def slow_down(self, seconds: float, *, way: Way | None = None, only: int | None = None) -> None:
        """Keep each piece back for so long; 0 for not at all.

        By default each way and on every connection: `way` is the one to delay, `there` is from near to far, and
        `only` the number of an open connection, taken modulo how many there are.
        """
        with self._lock:
            near_ends = self._ends[::2]
        self._delayed_connection = near_ends[only % len(near_ends)] if only is not None and near_ends else None
        self._delayed_way = way
        self._delay_seconds = seconds

    def _connect(self) -> socket.socket:
        """Connect to the first target that listens.

        Raises:
            OSError: none does.
        """
        *others, last = self._targets
        for target in others:
            with contextlib.suppress(OSError):
                return _connected(target)
        return _connected(last)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the listener is closed in the end
            while True:
                near, _ = self._listener.accept()
                try:
                    far = self._connect()
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
            back = threading.Thread(target=self._pump, args=(far, near, "back"), daemon=True)
            back.start()
            self._pump(near, far, "there")
            back.join()
        with self._lock:
            if near in self._ends:
                self._ends = [end for end in self._ends if end not in (near, far)]

    def _pump(self, source: socket.socket, target: socket.socket, way: Way) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._passing.wait()
                if self._delay_seconds and self._is_delayed(source if way == "there" else target, way):
                    time.sleep(self._delay_seconds)
                target.sendall(data)
        self._passing.wait()  # a dead cable tells nobody that the other end is gone
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _is_delayed(self, near: socket.socket, way: Way) -> bool:
        return self._delayed_way in (None, way) and self._delayed_connection in (None, near)


def _connected(target: int | Path) -> socket.socket:
    if isinstance(target, int):
        return socket.create_connection(("127.0.0.1", target))
    far = socket.socket(socket.AF_UNIX)
    try:
        far.connect(str(target))
    except OSError:
        far.close()
        raise
    return far
