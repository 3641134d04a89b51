"""Keeps pages up to date: one look a second at each page that somebody watches, shared by all who do.

A look that takes long is followed by a longer pause, so that the console never takes more than a tenth of a
database's time; and it has a thread of its own, so that it never delays a wake.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from console.pages import Page, page_of
from orchestrator.db import run_db_in

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 1.0
SHARE = 10
"""The pause is at least so many times as long as the look before it."""

Subject = tuple[str, str]
"""Kind of page, and what it is about."""

_threads = ThreadPoolExecutor(1, thread_name_prefix="console")


@dataclass(eq=False)
class Viewer:
    """Somebody who watches a page: gets the pieces that have changed, as JSON; the newest if it is slow."""

    waiting: dict[str, str] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, pieces: dict[str, str]) -> None:
        """Have pieces sent; one that waits still is replaced."""
        self.waiting |= pieces
        if pieces:
            self.news.set()

    async def next(self) -> str:
        """Return what has changed since the last time, once something has."""
        await self.news.wait()
        self.news.clear()
        pieces, self.waiting = self.waiting, {}
        return json.dumps({"pieces": pieces})


class Watch:
    """One page and all who watch it; looks for as long as somebody does."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._pieces: dict[str, str] = {}
        self.viewers: set[Viewer] = set()
        self.task = asyncio.create_task(self._keep_looking())

    def join(self, viewer: Viewer) -> None:
        """Show the page to one more."""
        self.viewers.add(viewer)
        viewer.tell(self._pieces)

    async def _keep_looking(self) -> None:
        while True:
            began = time.monotonic()
            try:
                pieces = await run_db_in(_threads, self._page.render)
            except Exception:  # a store is away for a moment
                logger.exception("console could not look", extra={"action": "console_look"})
            else:
                self._spread(pieces or {})
            took = time.monotonic() - began
            await asyncio.sleep(max(PAUSE_SECONDS, SHARE * took))

    def _spread(self, pieces: dict[str, str]) -> None:
        changed = {name: piece for name, piece in pieces.items() if self._pieces.get(name) != piece}
        self._pieces = pieces
        for viewer in self.viewers:
            viewer.tell(changed)


_watches: dict[tuple[asyncio.AbstractEventLoop, Subject], Watch] = {}


@contextmanager
def watching(subject: Subject) -> Iterator[Viewer | None]:
    """Watch a page for a while; None if there is no such page."""
    key = (asyncio.get_running_loop(), subject)
    watch = _watches.get(key)
    if watch is None:
        page = page_of(*subject, kept=True)
        if page is None:
            yield None
            return
        watch = _watches[key] = Watch(page)
    viewer = Viewer()
    watch.join(viewer)
    try:
        yield viewer
    finally:
        watch.viewers.discard(viewer)
        if not watch.viewers:
            watch.task.cancel()
            with contextlib.suppress(KeyError):
                del _watches[key]
