"""A runner that means harm: it speaks of actors that are not its own, in their generations and in others."""

import asyncio
import random
from collections.abc import Sequence
from contextlib import suppress

from websockets.exceptions import WebSocketException

from runners.protocol.messages import (
    ActorCheckpoint,
    EventWrapper,
    KvDropRequest,
    KvPutRequest,
    MessageId,
    ToServer,
    ToServerEvents,
    ToServerKvRequest,
    ToServerResponseStart,
    ToServerTunnelMessage,
)
from tests.support.scripted_runner import CRASHED, RUNNING, SLEEP, STOPPED, ScriptedRunner

POOL = "impostors"
PAUSE_SECONDS = 0.3
FLOOD = 100
"""So many events it may send in one message."""


async def impersonate(urls: Sequence[str], actors: Sequence[str], over: asyncio.Event) -> None:
    """Do harm until `over`, on one web process after the other."""
    while not over.is_set():
        runner = ScriptedRunner(random.choice(urls), key=f"impostor-{random.random()}", pool=POOL, slots=0)
        with suppress(OSError, TimeoutError, WebSocketException):
            await runner.connect()
            for _ in range(20):
                if over.is_set():
                    break
                await runner.send(_harm(random.choice(actors)))
                await runner.socket.send(random.randbytes(random.randrange(1, 200)))
                await asyncio.sleep(PAUSE_SECONDS)
            await runner.close()


def _harm(actor_id: str) -> ToServer:
    match random.randrange(4):
        case 0:
            return ToServerKvRequest(actor_id, random.randrange(1000), KvPutRequest((b"count",), (b"0",)))
        case 1:
            return ToServerKvRequest(actor_id, random.randrange(1000), KvDropRequest())
        case 2:
            return ToServerEvents(tuple(_event(actor_id, index) for index in range(random.choice([1, FLOOD]))))
        case _:
            place = MessageId(random.randbytes(4), random.randbytes(4), 0)
            return ToServerTunnelMessage(place, ToServerResponseStart(200, {}, b"forged", stream=False))


def _event(actor_id: str, index: int) -> EventWrapper:
    checkpoint = ActorCheckpoint(actor_id, random.randrange(30), index)
    return EventWrapper(checkpoint, random.choice([RUNNING, STOPPED, CRASHED, SLEEP]))
