"""A small application served by one of our servers: `python -m tests.support.served_app SERVER PORT`.

What a path does is said by its branch below. What happened to a connection after its client has gone is told
by `GET /journal`, and by a line on standard output for each thing that happens while the process ends.
"""

import asyncio
import contextlib
import json
import logging
import sys
from typing import Any

from orchestrator import lifespan
from orchestrator.server import serve
from orchestrator.server.limits import Pings

Message = dict[str, Any]

BODY_BYTES = 20 * 1024 * 1024
CHUNK = bytes(1024 * 1024)

journal: list[Any] = []
sent = {"chunks": 0, "messages": 0}
sockets: set[Any] = set()


async def application(scope: Message, receive: Any, send: Any) -> None:
    await (serve_request if scope["type"] == "http" else serve_websocket)(scope, receive, send)


def describe(scope: Message) -> Message:
    """Return the scope as JSON can show it."""

    def show(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        return [show(item) for item in value] if isinstance(value, list | tuple) else value

    kept = (
        "type",
        "method",
        "path",
        "raw_path",
        "query_string",
        "headers",
        "client",
        "subprotocols",
        "scheme",
        "root_path",
    )
    return {name: show(scope[name]) for name in kept if name in scope}


async def serve_request(scope: Message, receive: Any, send: Any) -> None:
    path, query = scope["path"], scope["query_string"].decode()

    async def answer(content: Any, status: int = 200) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = [(b"content-length", b"%d" % len(body)), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def begin(status: int = 200) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def chunk(data: bytes, more: bool = True) -> None:
        await send({"type": "http.response.body", "body": data, "more_body": more})

    match path:
        case "/journal":
            await answer({"journal": journal, "sent": sent})
        case "/length":
            length, more = 0, True
            while more:
                event = await receive()
                length += len(event.get("body", b""))
                more = event.get("more_body", False)
            await answer({"length": length})
        case "/stream":
            await begin(int(query or 200))
            await receive()
            for number in range(3):
                await chunk(b"%d," % number)
            await chunk(b"", more=False)
        case "/quiet-stream":
            await begin()
            await receive()
            journal.append((await receive())["type"])
        case "/flood":
            await begin()
            await flood("chunks", lambda: chunk(CHUNK), receive, "http.disconnect")
        case "/crash":
            raise ValueError("as asked")
        case "/crash-late":
            await begin()
            await chunk(b"some")
            raise ValueError("as asked")
        case "/nothing":
            return
        case "/not-modified":
            await answer(b"12345", status=304)
        case "/slow":
            print("begun", flush=True)
            await asyncio.sleep(float(query))
            await answer("slow")
        case _:
            await answer(describe(scope))


async def serve_websocket(scope: Message, receive: Any, send: Any) -> None:
    path, query = scope["path"], scope["query_string"].decode()
    assert (await receive())["type"] == "websocket.connect"

    async def accept(**options: Any) -> None:
        await send({"type": "websocket.accept", **options})

    async def say(**content: Any) -> None:
        await send({"type": "websocket.send", **content})

    match path:
        case "/deny":
            await send({"type": "websocket.close", "code": 4000})
        case "/crash-early":
            raise ValueError("as asked")
        case "/crash":
            await accept()
            await receive()
            raise ValueError("as asked")
        case "/return":
            await accept()
            await receive()
        case _ if path.startswith("/scope"):
            chosen = "rivet" if path.startswith("/scope/rivet") else None
            await accept(subprotocol=chosen, headers=[(b"x-torpor", b"1"), (b"x-torpor", b"2")])
            await say(text=json.dumps(describe(scope)))
        case "/wait":
            await asyncio.sleep(float(query))
            await accept()
            await say(text="accepted")
            await echo(receive, send)
        case "/hang":
            print("begun", flush=True)
            event = await receive()
            journal.append(["hang", event["type"], event.get("code")])
        case "/close":
            await accept()
            order = json.loads((await receive())["text"])
            await send({"type": "websocket.close", **order})
            event = await receive()
            journal.append(["close", event["code"], event["reason"]])
            await say(text="too late")
        case "/flood":
            await accept()
            await flood("messages", lambda: say(bytes=CHUNK), receive, "websocket.disconnect")
        case "/flood-and-close":
            await accept()
            await flood_until_stuck(lambda: say(bytes=CHUNK))
            await send({"type": "websocket.close", "code": 1011, "reason": "too slow"})
            event = await receive()
            journal.append([event["type"], event["code"]])
        case "/deaf":
            await accept()
            await asyncio.Event().wait()
        case _:
            await accept()
            sockets.add(send)
            await echo(receive, send)


async def flood(kind: str, send_one: Any, receive: Any, end: str) -> None:
    """Send and count until the client has gone."""

    async def send_all() -> None:
        while True:
            await send_one()
            sent[kind] += 1

    sending = asyncio.create_task(send_all())
    while (await receive())["type"] != end:
        pass
    sending.cancel()
    journal.append(end)


async def flood_until_stuck(send_one: Any) -> None:
    """Send until the client takes nothing more for a while."""
    with contextlib.suppress(TimeoutError):
        while True:
            await asyncio.wait_for(send_one(), 0.5)


async def echo(receive: Any, send: Any) -> None:
    """Send back what comes; write down the end."""
    while (event := await receive())["type"] == "websocket.receive":
        assert type(event.get("bytes") or b"") is bytes
        await send(event | {"type": "websocket.send"})
    await send({"type": "websocket.send", "text": "goes nowhere, and is no error"})
    journal.append(["echo", event["code"], event["reason"]])
    print("disconnected", event["code"], event["reason"], flush=True)


async def say_goodbye() -> None:
    print("goodbye", flush=True)
    for send in sockets:
        await send({"type": "websocket.close", "code": 1011, "reason": "ws.going_away#ray"})
    await asyncio.sleep(0.2)
    print("goodbye said", flush=True)


if __name__ == "__main__":
    logging.basicConfig()
    if "--goodbye" in sys.argv:
        lifespan.on_shutdown(say_goodbye)
    pings = Pings(0.6, 0.4) if "--pings" in sys.argv else None
    serve("127.0.0.1", int(sys.argv[2]), sys.argv[1], application, body_bytes=BODY_BYTES, pings=pings)
    print("served", flush=True)
