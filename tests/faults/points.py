"""The engine's Celery app, whose worker dies or freezes at a named point of a turn, once told to.

    after lock      the shard's lease is taken, nothing is done
    before commit   everything is decided and written, nothing committed
    after commit    committed, no effect performed
    before trim     effects performed, the signals still in the mailbox

The functions a turn passes are wrapped, and do what they always do. Whoever wants a worker to meet its fate
writes `signal number` to a file named after the point, in `FAULT_POINTS`; the first worker there takes the file.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from orchestrator.celery import app as app
from orchestrator.workflow import lock, outbox

DIRECTORY = "FAULT_POINTS"
POINTS = ("after lock", "before commit", "after commit", "before trim")


def arm(directory: Path, point: str, number: signal.Signals) -> None:
    """Have the next worker that comes to this point sent a signal, by itself."""
    assert point in POINTS
    waiting = directory / "waiting"
    waiting.write_text(str(int(number)))
    waiting.rename(directory / point)


def disarm(directory: Path, point: str) -> bool:
    """Take the order back; False if a worker has met it."""
    try:
        (directory / point).unlink()
    except FileNotFoundError:
        return False
    return True


def _meet(point: str) -> None:
    order = Path(os.environ[DIRECTORY]) / point
    if not order.exists():
        return
    mine = order.with_suffix(f".{os.getpid()}")
    with suppress(FileNotFoundError):
        order.rename(mine)
        number = int(mine.read_text())
        mine.unlink()
        os.kill(os.getpid(), number)


def _before(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        _meet(point)
        return function(*args, **kwargs)

    return wrapped


def _after(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        done = function(*args, **kwargs)
        if done:
            _meet(point)
        return done

    return wrapped


if DIRECTORY in os.environ:
    lock.ShardLock.take_up = _after("after lock", lock.ShardLock.take_up)  # type: ignore[method-assign]
    lock.ShardLock.go_on = _before("before trim", lock.ShardLock.go_on)  # type: ignore[method-assign]
    BaseDatabaseWrapper.commit = _before("before commit", BaseDatabaseWrapper.commit)  # type: ignore[method-assign]
    outbox.Outbox.perform = _before("after commit", outbox.Outbox.perform)  # type: ignore[method-assign]
