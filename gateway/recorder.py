"""Arrows of the gateway on their way to the timeline, some at a time."""

import asyncio
import contextlib
from datetime import datetime

from django.db import transaction

from orchestrator import clock
from orchestrator.arrows import Arrow
from orchestrator.contention import again
from orchestrator.db import run_db
from orchestrator.timeline import record

RECORD_SECONDS = 0.05


class Recorder:
    """Stores arrows soon. Should that fail, only the picture lacks them."""

    def __init__(self) -> None:
        self._arrows: list[tuple[datetime, Arrow]] = []
        self._task: asyncio.Task[None] | None = None

    def note(self, arrow: Arrow, at: datetime | None = None) -> None:
        """Have an arrow of this moment, or of another, stored."""
        self._arrows.append((at or clock.now(), arrow))
        if self._task is None:
            self._task = asyncio.create_task(self._record())

    def close(self) -> None:
        """Store nothing more."""
        if self._task is not None:
            self._task.cancel()

    async def stored(self) -> None:
        """Wait until what was noted so far is stored, or could not be."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _record(self) -> None:
        while self._arrows:
            await asyncio.sleep(RECORD_SECONDS)
            arrows, self._arrows = self._arrows, []
            with contextlib.suppress(Exception):
                await run_db(_store, arrows)
        self._task = None


@again
def _store(arrows: list[tuple[datetime, Arrow]]) -> None:
    with transaction.atomic():
        for at, arrow in arrows:
            record([arrow], at)
