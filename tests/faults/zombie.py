"""A runner whose actor writes on when it has stopped, while its next life has begun on the same runner.

The engine carries out so many writes of one runner at a time. They are all taken meanwhile, by writes of others
whose rows are locked, so that the late one has to wait until the next life is there.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress
from itertools import count

import httpx
import psycopg
from websockets.exceptions import WebSocketException

from runners.protocol.messages import (
    CommandStopActor,
    CommandWrapper,
    KvPutRequest,
    KvPutResponse,
    ToClientKvResponse,
    ToServerKvRequest,
    ToServerStopping,
)
from runners.storage_desk import AT_ONCE
from tests.faults.history import History, LateWrite
from tests.support.scripted_runner import SLEEP, SOON_S, ScriptedRunner

PAUSE_SECONDS = 4.0
LATE_SECONDS = 0.3
"""So long after the beginning of the next life the late write gets its turn."""
LOCKED_SECONDS = 3.0
LOCK = "SELECT id FROM actors_actor WHERE id = ANY(%s) FOR UPDATE"

_pools = count()


class Zombie(ScriptedRunner):
    """It obeys, but for the stop of the actor that is `haunted`: that goes to `stops`."""

    def __init__(self, url: str, pool: str) -> None:
        super().__init__(url, key=pool, pool=pool, slots=AT_ONCE + 1)
        self.haunted = ""
        self.stops: asyncio.Queue[CommandWrapper] = asyncio.Queue()

    async def obey(self, command: CommandWrapper) -> None:
        if isinstance(command.inner, CommandStopActor) and command.checkpoint.actor_id == self.haunted:
            self.haunted = ""
            self.stops.put_nowait(command)
        else:
            await super().obey(command)

    def answer_to(self, request_id: int) -> ToClientKvResponse | None:
        """Return the answer to a storage request, if it has come."""
        answers = (one for one in self.received if isinstance(one, ToClientKvResponse))
        return next((one for one in answers if one.request_id == request_id), None)


async def haunt(urls: Sequence[str], database_url: str, history: History, over: asyncio.Event) -> None:
    """Have actors write after their time until `over`, on one web process after the other."""
    while not over.is_set():
        url = random.choice(urls)
        runner = Zombie(url, f"zombies-{next(_pools)}")
        failures = (OSError, TimeoutError, WebSocketException, httpx.HTTPError, psycopg.Error)
        with suppress(*failures):
            await runner.connect()
            async with httpx.AsyncClient(base_url=url, timeout=SOON_S) as engine:
                while not over.is_set():
                    await _write_late(runner, engine, database_url, history)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(over.wait(), PAUSE_SECONDS)
            await runner.send(ToServerStopping())
            await runner.has_closed()
        with suppress(*failures):
            await runner.end()


async def _write_late(runner: Zombie, engine: httpx.AsyncClient, database_url: str, history: History) -> None:
    actors: list[str] = []
    try:
        for _ in range(AT_ONCE + 1):
            actors.append(await _create(engine, runner.init.name))
            (await engine.get(f"/gateway/{actors[-1]}/")).raise_for_status()  # the engine knows that it runs
        async with asyncio.timeout(LOCKED_SECONDS):
            accepted = await _answer_to_late_write(runner, engine, database_url, *actors)
    finally:
        for one in actors:
            await engine.delete(f"/actors/{one}", params={"namespace": "default"})
    if accepted is not None:
        history.late_writes.append(LateWrite(actors[0], 0, accepted))


async def _answer_to_late_write(
    runner: Zombie, engine: httpx.AsyncClient, database_url: str, actor_id: str, *others: str
) -> bool | None:
    """Return whether the late write of an actor was accepted; None if its turn came before the next life."""
    late = random.randrange(AT_ONCE, 2**31)
    async with await psycopg.AsyncConnection.connect(database_url) as database:
        await database.execute(LOCK, (list(others),))
        for request_id, one in enumerate(others):
            await runner.send(ToServerKvRequest(one, request_id, KvPutRequest((b"held",), (b"up",))))
        runner.haunted = actor_id
        await runner.say(actor_id, SLEEP)
        await runner.obey(await runner.stops.get())
        await runner.send(ToServerKvRequest(actor_id, late, KvPutRequest((b"late",), (b"0",))))
        (await engine.get(f"/gateway/{actor_id}/")).raise_for_status()  # by its next life
        await asyncio.sleep(LATE_SECONDS)
        too_soon = runner.answer_to(late) is not None
    answer = await runner.take(ToClientKvResponse, lambda one: one.request_id == late)
    return None if too_soon else isinstance(answer.data, KvPutResponse)


async def _create(engine: httpx.AsyncClient, pool: str) -> str:
    body = {"name": "zombie", "runner_name_selector": pool, "crash_policy": "sleep"}
    made = await engine.post("/actors", params={"namespace": "default"}, json=body)
    return str(made.raise_for_status().json()["actor"]["actor_id"])
