"""Runners that treat the actors they were given badly, and one that is good to them.

idle      never says that an actor runs
stubborn  never lets an actor stop
confused  speaks of other generations than it was told, and says nothing of a stop in the right one
undead    falls silent until it is lost, and comes back with the answers and events of its former lives
chatty    says a thousand times a second that its actors run
mad       sends frames that mean nothing, and forged answers, among what it should
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from websockets.exceptions import WebSocketException

from runners.protocol.messages import (
    ActorCheckpoint,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    EventWrapper,
    KvPutRequest,
    MessageId,
    ToServerEvents,
    ToServerKvRequest,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerTunnelMessage,
)
from tests.support.scripted_runner import RUNNING, SLEEP, STOPPED, Request, ScriptedRunner

SLOTS = 6
FLOOD = 200
PAUSE_SECONDS = 0.2
AGAIN_SECONDS = 0.2


class Host(ScriptedRunner):
    """A runner that comes back whenever its connection ends, until it is told to leave."""

    def __init__(self, urls: Sequence[str], pool: str) -> None:
        super().__init__(random.choice(urls), key=f"{pool} {random.random()}", pool=pool, slots=SLOTS)
        self.is_there = asyncio.Event()
        self._leaves = False

    async def stay(self) -> None:
        """Be there until told to leave."""
        while not self._leaves:
            with suppress(OSError, TimeoutError, WebSocketException):
                await self.connect()
                self.is_there.set()
                await self._misbehave_to_the_end()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _misbehave_to_the_end(self) -> None:
        doing = asyncio.create_task(self.misbehave())
        try:
            if self._leaves:
                self.socket.transport.abort()
            await self._has_ended()
        finally:
            doing.cancel()
            [outcome] = await asyncio.gather(doing, return_exceptions=True)
        if isinstance(outcome, Exception):
            raise outcome

    async def misbehave(self) -> None:
        """Do what it does by itself, once connected."""

    async def leave(self) -> None:
        """Be gone, as a process that was killed."""
        self._leaves = True
        if self._socket is not None:
            self.socket.transport.abort()


class Idle(Host):
    async def _obey(self, command: CommandWrapper) -> None:
        """Leave every command where it is."""


class Stubborn(Host):
    async def _obey(self, command: CommandWrapper) -> None:
        if not isinstance(command.inner, CommandStopActor):
            await super()._obey(command)


class Confused(Host):
    async def _obey(self, command: CommandWrapper) -> None:
        actor_id, generation = command.checkpoint.actor_id, command.checkpoint.generation
        for other in (generation + 1, max(generation - 1, 0) if generation else 7):
            events = [
                EventWrapper(ActorCheckpoint(actor_id, other, index), event)
                for index, event in enumerate((RUNNING, SLEEP, STOPPED))
            ]
            await self.send(ToServerEvents(tuple(events)))
        if isinstance(command.inner, CommandStartActor):
            await super()._obey(command)


class Undead(Host):
    """`misbehave` makes it fall silent at its first connection, and haunt the engine at every later one."""

    async def misbehave(self) -> None:
        if not self.pongs:
            return await self._haunt()
        asked = asyncio.Event()

        async def keep_waiting(_: Request) -> None:
            asked.set()

        self.answer = keep_waiting
        await asked.wait()
        self.pongs = self.obeys = False
        return None

    async def _haunt(self) -> None:
        former = sorted(set(self.started))
        for request in self.requests:
            await request.answer(b"too late")
        for actor_id, generation in former:
            events = [
                EventWrapper(ActorCheckpoint(actor_id, generation, index), event)
                for index, event in enumerate((RUNNING, SLEEP, STOPPED))
            ]
            await self.send(ToServerEvents(tuple(events)))
            await self.send(ToServerKvRequest(actor_id, 1, KvPutRequest((b"count",), (b"0",))))

    async def _welcomed(self, runner_id: str) -> None:
        self.runner_id = runner_id  # and it forgets nothing


class Chatty(Host):
    async def misbehave(self) -> None:
        while True:
            for actor_id in list(self.lives):
                await self.send(ToServerEvents(tuple(self.event(actor_id, RUNNING) for _ in range(FLOOD))))
                self._history[actor_id].clear()
            await asyncio.sleep(PAUSE_SECONDS)


class Mad(Host):
    async def misbehave(self) -> None:
        while True:
            await self.socket.send(random.randbytes(random.randrange(0, 300)))
            await self.socket.send("text")
            place = MessageId(random.randbytes(4), random.randbytes(4), random.randrange(2**16))
            if self.requests:
                place = random.choice(self.requests).id
            forged = random.choice(
                [
                    ToServerResponseStart(
                        random.choice([0, 99, 200, 999, 65535]), {"": "\r\n"}, b"?", stream=True
                    ),
                    ToServerResponseChunk(b"?", finish=False),
                ]
            )
            await self.send(ToServerTunnelMessage(place, forged))
            await asyncio.sleep(PAUSE_SECONDS / 4)


BAD: dict[str, type[Host]] = {
    "never starts": Idle,
    "never stops": Stubborn,
    "errs in generations": Confused,
    "answers after its end": Undead,
    "floods": Chatty,
    "talks nonsense": Mad,
}
"""By what is said of it in the schedule."""

__all__ = ["BAD", "Host"]
