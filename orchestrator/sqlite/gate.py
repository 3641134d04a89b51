"""The queue of writers before one SQLite file, across threads and processes.

SQLite lets one writer in at a time and has the others look again after ever longer naps, so that an unlucky
one may never find the door open. An `flock` wakes those who wait for it, and the kernel lets go of it when
its holder dies, whatever the cause.
"""

import fcntl
import os
import threading


class GateTimeout(Exception):
    """The writers ahead did not finish in time."""


class Gate:
    """One writer's way into the lock file at `path`, which stays where it is when nobody needs it.

    Not for use by several threads at a time: each connection has its own.
    """

    def __init__(self, path: str, patience_seconds: float) -> None:
        self._path = path
        self._patience_seconds = patience_seconds
        self._descriptor: int | None = None

    def enter(self) -> None:
        """Wait for the writers ahead; does nothing if already inside. Raises GateTimeout."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not _Wait(descriptor).lasts_at_most(self._patience_seconds):
                raise GateTimeout from None
        except OSError:
            os.close(descriptor)
            raise
        self._descriptor = descriptor

    def __del__(self) -> None:
        self.leave()

    def leave(self) -> None:
        """Let the next one in; does nothing outside."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            _release(descriptor)


class _Wait:
    """A blocking `flock` with an end. The call has no timeout of its own, so it gets a thread to block in.

    A thread whose wait was given up stays until the lock is free, and then frees it again.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._locked = threading.Event()
        self._given_up = False
        self._mutex = threading.Lock()
        threading.Thread(target=self._run, name="sqlite-gate", daemon=True).start()

    def lasts_at_most(self, seconds: float) -> bool:
        """Return True when the lock is ours, False when it was given up and the descriptor with it."""
        if self._locked.wait(seconds):
            return True
        with self._mutex:
            self._given_up = not self._locked.is_set()
            return not self._given_up

    def _run(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        with self._mutex:
            if not self._given_up:
                self._locked.set()
                return
        _release(self._descriptor)


def _release(descriptor: int) -> None:
    """Unlock, then close: closing alone would not unlock what a forked child has inherited."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)
