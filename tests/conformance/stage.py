"""A runner of some kind and the scripted engine it is connected to, as the cases need them."""

import asyncio
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

from runners.protocol.messages import EventWrapper, ToServerEvents, ToServerInit, ToServerResponseStart
from runners.sdk.testing.store import MemoryStore
from tests.support import kinds
from tests.support.endpoint import Application
from tests.support.scripted_engine import Connection, ScriptedEngine
from tests.support.web import eventually

SILENCE_S = 1.0  # what has not been said by then is not said
SOON_S = 20.0

_numbers = itertools.count(1)


class Stage:
    """A runner of one kind and the engine it is connected to."""

    def __init__(self, kind: str, engine: ScriptedEngine, app: Application) -> None:
        self.kind, self.engine, self.app = kind, engine, app
        self.runner_ids = itertools.count(2)
        self.runner_id = "run1"
        self.connection: Connection
        self._stores: defaultdict[str, MemoryStore] = defaultdict(MemoryStore)

    async def meet(self) -> Connection:
        """Take the runner's next connection and welcome it."""
        await self.next_connection()
        await self.connection.welcome(self.runner_id)
        return self.connection

    async def next_connection(self) -> None:
        """Take the runner's next connection as it is; what its actors store is kept."""
        async with asyncio.timeout(SOON_S):
            self.connection = await self.engine.connections.get()
        self.connection.stores = self._stores

    async def actor(self, **fields: Any) -> str:
        """Start an actor and return its id."""
        actor_id = f"actor{next(_numbers)}"
        await self.connection.running(actor_id=actor_id, name="counter", **fields)
        return actor_id

    def events(self, actor_id: str) -> list[EventWrapper]:
        """Return what the present connection has heard of an actor."""
        heard = [m for m in self.connection.received if isinstance(m, ToServerEvents)]
        return [event for message in heard for event in message.events if event.checkpoint.actor_id == actor_id]

    async def has_said(self, actor_id: str, count: int) -> list[EventWrapper]:
        """Wait until so many events of an actor have come."""
        await eventually(lambda: len(self.events(actor_id)) >= count, SOON_S)
        return self.events(actor_id)

    async def answer(self, request_id: bytes) -> ToServerResponseStart | None:
        """Return the answer to a request, None if there is none for a while."""
        try:
            async with asyncio.timeout(SILENCE_S):
                return await self.connection.take_answer(request_id)
        except TimeoutError:
            return None

    async def said(self, kind: type[Any]) -> bool:
        """Say whether a message of that kind has come or comes soon."""
        try:
            async with asyncio.timeout(SILENCE_S):
                await self.connection.take(kind)
        except TimeoutError:
            return False
        return True

    async def journal(self, event: str, **fields: Any) -> bool:
        """Wait until the application tells that something has happened."""
        await eventually(lambda: self.app.events(event, **fields), SOON_S)
        return True


async def first_meeting(kind: str, engine: ScriptedEngine, directory: Path) -> Stage:
    """Start a runner of that kind and welcome it."""
    stage = Stage(kind, engine, kinds.start(kind, directory, engine.endpoint, "pool"))
    stage.app.start()
    await stage.meet()
    assert isinstance(stage.connection.received[0], ToServerInit)
    return stage
