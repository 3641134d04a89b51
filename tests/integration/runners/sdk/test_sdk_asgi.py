import asyncio
from types import SimpleNamespace

import pytest
from django.core.asgi import get_asgi_application

from runners.protocol.messages import ToServerResponseAbort, ToServerResponseStart
from runners.sdk import AsgiActor, Request, WebSocketClosed, asgi_actor
from runners.sdk.testing import LocalEngine
from runners.sdk.testing.clock import settle


async def app(scope, receive, send):
    """Does what the path says, as an app of any framework might."""
    if scope["type"] == "websocket":
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            if message["text"] == "close":
                await send({"type": "websocket.close", "code": 4001, "reason": "as you wish"})
            else:
                await send({"type": "websocket.send", "text": message["text"], "bytes": message["bytes"]})
        return
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    headers = [(b"set-cookie", b"a=1"), (b"Set-Cookie", b"b=2")]
    if scope["path"] == "/fail":
        raise ValueError("no luck")
    if scope["path"] == "/nothing":
        return
    await send({"type": "http.response.start", "status": 201, "headers": headers})
    if scope["path"].startswith("/stream"):
        for part in (b"one", b"two"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if scope["path"] == "/stream/fail":
            raise ValueError("no luck")
        await send({"type": "http.response.body"})
    else:
        ctx = scope["torpor.ctx"]
        said = [ctx.name, scope["method"], scope["path"], scope["raw_path"], scope["query_string"], body]
        await send({"type": "http.response.body", "body": repr(said).encode()})


@pytest.fixture
async def actor():
    async with LocalEngine({"app": asgi_actor(app)}) as engine:
        yield engine.actor("app")


async def test_an_app_answers_the_requests_of_an_actor(actor):
    answer = await actor.fetch("/a%20b?x=1", method="POST", body=b"hi")
    assert answer.status_code == 201
    assert answer.text == repr(["app", "POST", "/a b", b"/a%20b", b"x=1", b"hi"])
    assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]


async def test_what_comes_in_pieces_goes_in_pieces_both_ways(actor):
    async def parts():
        yield b"a"
        yield b"b"

    assert (await actor.fetch("/", method="POST", body=parts())).text.endswith("b'ab']")
    async with actor.stream("/stream") as answer:
        assert [part async for part in answer.aiter_raw()] == [b"one", b"two"]


@pytest.mark.parametrize("path", ["/fail", "/nothing"])
async def test_an_app_that_fails_or_says_nothing_answers_500(actor, path):
    assert (await actor.fetch(path)).status_code == 500


async def test_an_answer_that_breaks_off_is_aborted(engine, host):
    await host(asgi_actor(app))
    connection = await engine.connection()
    await connection.running()
    request = await connection.ask("/stream/fail")
    assert isinstance(await connection.take_tunnel(request), ToServerResponseStart)
    assert [(await connection.take_tunnel(request)).body for _ in range(2)] == [b"one", b"two"]
    assert await connection.take_tunnel(request) == ToServerResponseAbort()


async def test_the_app_hears_that_its_client_has_gone():
    heard, sending = asyncio.Event(), asyncio.Event()

    async def endless(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"tick", "more_body": True})
                sending.set()
        finally:
            heard.set()

    async with LocalEngine({"app": asgi_actor(endless)}) as engine:
        async with engine.actor("app").stream():
            await sending.wait()
        await heard.wait()


async def test_an_app_that_has_ended_is_heard_to_its_last_word_by_a_slow_reader():
    request = Request("GET", "/stream")
    answer = await asgi_actor(app)().fetch(SimpleNamespace(name="app"), request)
    heard = []
    async for chunk in answer.chunks:
        await settle()
        heard.append(chunk)
    assert heard == [b"one", b"two", b""]


async def test_an_app_serves_websockets(actor):
    socket = await actor.websocket("/ws")
    for message in ("text", b"\xff"):
        await socket.send(message)
        assert await socket.recv() == message
    await socket.send("close")
    with pytest.raises(WebSocketClosed, match="4001 as you wish"):
        await socket.recv()


async def test_each_life_may_have_an_app_of_its_own():
    class Own(AsgiActor):
        def app_for(self, ctx):
            async def numbered(scope, receive, send):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": str(ctx.generation).encode()})

            return numbered

    async with LocalEngine({"own": Own}) as engine:
        actor = engine.actor("own")
        assert (await actor.fetch()).text == "0"
        await actor.sleep()
        assert (await actor.fetch()).text == "1"


@pytest.mark.django_db(transaction=True)
async def test_a_django_project_is_an_app_like_any_other():
    async with LocalEngine({"django": asgi_actor(get_asgi_application())}) as engine:
        answer = await engine.actor("django").fetch("/no/such/page", headers={"host": "localhost"})
        assert answer.status_code == 404
