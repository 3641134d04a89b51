"""What of an actor outlasts its lives is written to its store from time to time."""

import asyncio
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol

from runners.sdk.clock import Clock, Timer
from runners.sdk.errors import KvError
from runners.sdk.kv import Kv

PREFIX = b"\xff\xfftorpor/"
"""The keys of an actor's store that the SDK has for itself. Text never begins so, and these are listed last."""

SAVE_AFTER = timedelta(milliseconds=500)  # changes made meanwhile are written together
BATCH_ENTRIES = 128  # PROTOCOL §6.3
BATCH_BYTES = 976 * 1024 - BATCH_ENTRIES * 2

log = logging.getLogger(__name__)


class Record(Protocol):
    """Something kept under one key."""

    @property
    def key(self) -> bytes:
        """Where it is kept."""

    def value(self) -> bytes | None:
        """Return what is to be kept now; None: nothing any more."""

    def saved(self) -> None:
        """Hear that the value given last is in the store."""


class Saver:
    """Saves changed records of one actor, together: one write holds all that changed before it began."""

    def __init__(self, kv: Kv, clock: Clock) -> None:
        self._kv = kv
        self._clock = clock
        self._changed: dict[Record, None] = {}
        self._stored: dict[bytes, bytes] = {}
        self._lock = asyncio.Lock()
        self._timer: Timer | None = None
        self._background: asyncio.Task[None] | None = None

    def stored(self, key: bytes, value: bytes) -> None:
        """Note that this is in the store already."""
        self._stored[key] = value

    def changed(self, record: Record) -> None:
        """Save the record soon, if its value differs from what is stored."""
        self._changed[record] = None
        if self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + SAVE_AFTER, self._due)

    async def save(self) -> None:
        """Save what has changed now. Raises KvError; what could not be saved is tried again."""
        async with self._lock:
            records, self._changed = list(self._changed), {}
            try:
                await self._write({record.key: record.value() for record in records})
            except BaseException:
                self._changed = dict.fromkeys(records) | self._changed
                raise
            for record in records:
                record.saved()

    async def finish(self) -> None:
        """Save for the last time. Raises KvError."""
        if self._timer is not None:
            self._timer.cancel()
        await self.save()

    def _due(self) -> None:
        self._timer = None
        self._background = asyncio.create_task(self._save_in_background())

    async def _save_in_background(self) -> None:
        try:
            await self.save()
        except (KvError, TypeError, ValueError) as error:
            log.error("an actor cannot be saved: %s", error, extra={"action": "save_failed"})
            if self._timer is None:
                self._timer = self._clock.call_at(self._clock.now() + SAVE_AFTER * 4, self._due)

    async def _write(self, wanted: dict[bytes, bytes | None]) -> None:
        news = {
            key: value for key, value in wanted.items() if value is not None and self._stored.get(key) != value
        }
        gone = [key for key, value in wanted.items() if value is None and key in self._stored]
        for batch in _batches(news):
            await self._kv.put_many(batch)
            self._stored |= batch
        for start in range(0, len(gone), BATCH_ENTRIES):
            keys = gone[start : start + BATCH_ENTRIES]
            await self._kv.delete(*keys)
            for key in keys:
                del self._stored[key]


def _batches(entries: dict[bytes, bytes]) -> Iterator[dict[bytes, bytes]]:
    """Cut what is to be written into pieces that one call to the store may carry; usually there is one."""
    batch: dict[bytes, bytes] = {}
    size = 0
    for key, value in entries.items():
        weight = len(key) + len(value)
        if batch and (len(batch) == BATCH_ENTRIES or size + weight > BATCH_BYTES):
            yield batch
            batch, size = {}, 0
        batch[key] = value
        size += weight
    if batch:
        yield batch
