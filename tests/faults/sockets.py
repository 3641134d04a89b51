"""Clients' WebSockets to actors that echo: each message is a number, and each log says which came back."""

import asyncio
import contextlib
import random
import time

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from tests.faults.history import History, SocketLog

IN_FLIGHT = 20
PAUSE_SECONDS = 0.1
LAST_ECHO_SECONDS = 30.0


async def converse(
    urls: list[str], history: History, actor_id: str, over: asyncio.Event, *, may_hibernate: bool
) -> None:
    """Keep a socket to an actor, send numbers and listen until `over`; open a new one whenever it ends."""
    path = "/hibernate" if may_hibernate else "/"
    while not over.is_set():
        web = random.randrange(len(urls))
        url = f"{urls[web].replace('http', 'ws', 1)}/gateway/{actor_id}{path}"
        try:
            client = await connect(url, compression=None, proxy=None, ping_interval=None, open_timeout=75)
        except (OSError, WebSocketException, TimeoutError):
            await asyncio.sleep(PAUSE_SECONDS)
            continue
        log = SocketLog(actor_id, web, may_hibernate, time.time())
        history.sockets.append(log)
        await _use(client, log, over)


async def _use(client: ClientConnection, log: SocketLog, over: asyncio.Event) -> None:
    listener = asyncio.create_task(_listen(client, log))
    try:
        with contextlib.suppress(ConnectionClosed):
            while not over.is_set() and not listener.done():
                if log.sent - len(log.heard) < IN_FLIGHT:
                    await client.send(str(log.sent))
                    log.sent += 1
                await asyncio.sleep(PAUSE_SECONDS * random.uniform(0.5, 1.5))
            last = asyncio.create_task(_all_heard(log))
            await asyncio.wait([listener, last], return_when=asyncio.FIRST_COMPLETED)
            last.cancel()
            log.left = not listener.done()
        await client.close()
    finally:
        await listener


async def _all_heard(log: SocketLog) -> None:
    """Wait until everything has come back, for a while."""
    for _ in range(int(LAST_ECHO_SECONDS / PAUSE_SECONDS)):
        if log.sent - 1 in log.heard[-1:]:
            return
        await asyncio.sleep(PAUSE_SECONDS)


async def _listen(client: ClientConnection, log: SocketLog) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for message in client:
            log.heard.append(int(message))
    log.closed = time.time()
    received = client.protocol.close_rcvd
    if received is not None:
        log.code, log.reason = received.code, received.reason
