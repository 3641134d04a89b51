import asyncio
import json

import pytest

from runners.protocol.messages import (
    ToClientPing,
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToServerInit,
    ToServerPong,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
)
from runners.sdk import Response, StreamingResponse
from runners.sdk.exchange import CHUNK_BYTES
from runners.sdk.outbox import ROOM_BYTES
from runners.sdk.upload import UNREAD_BYTES
from runners.sdk.window import WINDOW_BYTES
from tests.support.scripted_engine import stop


async def settled(connection) -> None:
    """Wait until the runner has dealt with everything sent before."""
    await connection.send(ToClientPing(1))
    await connection.take(ToServerPong)


async def serving(engine, host, fetch, **welcome):
    await host(fetch)
    connection = await engine.connection(**welcome)
    await connection.running()
    return connection


class TestAbilities:
    async def test_a_runner_announces_what_it_can_do_beyond_the_protocol(self, engine, host):
        await host(metadata={"zone": "b"})
        connection = await engine.greeted()
        init = await connection.take(ToServerInit)
        abilities = {"request_streaming": True, "multi_headers": True, "response_window": WINDOW_BYTES}
        assert json.loads(init.metadata) == {"zone": "b", "torpor": abilities}


class TestAnswers:
    async def test_an_answer_is_sent_piece_by_piece_as_it_is_made(self, engine, host):
        go = asyncio.Event()

        async def counting():
            yield "one"
            await go.wait()
            yield b"\xff"
            yield ""

        async def fetch(ctx, request):
            return StreamingResponse(counting(), 206, {"X-A": ["1", "2"]})

        connection = await serving(engine, host, fetch)
        request = await connection.ask()
        assert await connection.take_tunnel(request) == ToServerResponseStart(
            206, {"x-a": "1\n2"}, None, stream=True
        )
        assert await connection.take_tunnel(request) == ToServerResponseChunk(b"one", finish=False)
        go.set()
        assert await connection.take_tunnel(request) == ToServerResponseChunk(b"\xff", finish=False)
        assert await connection.take_tunnel(request) == ToServerResponseChunk(b"", finish=True)

    async def test_a_large_chunk_is_cut(self, engine, host):
        async def large():
            yield bytes(2 * CHUNK_BYTES + 1)

        async def fetch(ctx, request):
            return StreamingResponse(large())

        connection = await serving(engine, host, fetch)
        request = await connection.ask()
        await connection.take_answer(request)
        sizes = [len((await connection.take_tunnel(request)).body) for _ in range(4)]
        assert sizes == [CHUNK_BYTES, CHUNK_BYTES, 1, 0]

    @pytest.mark.parametrize("error", [ValueError("no luck"), asyncio.CancelledError()])
    async def test_one_that_fails_on_the_way_is_aborted(self, engine, host, error):
        async def breaking():
            yield b"some"
            raise error

        async def fetch(ctx, request):
            return StreamingResponse(breaking())

        connection = await serving(engine, host, fetch)
        request = await connection.ask()
        await connection.take_answer(request)
        assert (await connection.take_tunnel(request)).body == b"some"
        assert await connection.take_tunnel(request) == ToServerResponseAbort()

    async def test_a_client_that_goes_away_closes_the_generator(self, engine, host):
        closed = asyncio.Event()

        async def endless():
            try:
                while True:
                    yield b"tick"
                    await asyncio.sleep(0)
            finally:
                closed.set()

        async def fetch(ctx, request):
            return StreamingResponse(endless())

        connection = await serving(engine, host, fetch)
        request = await connection.ask()
        await connection.take_answer(request)
        await connection.tunnel(request, ToClientRequestAbort(), index=1)
        await closed.wait()
        await settled(connection)

    async def test_one_that_a_stop_cuts_off_is_aborted_and_not_tried_elsewhere(self, engine, host):
        async def endless():
            yield b"tick"
            await asyncio.Event().wait()

        async def fetch(ctx, request):
            return StreamingResponse(endless())

        connection = await serving(engine, host, fetch, grace_ms=100)
        request = await connection.ask()
        await connection.take_answer(request)
        await connection.take_tunnel(request)
        await connection.command(stop())
        assert await connection.take_tunnel(request) == ToServerResponseAbort()

    async def test_it_is_made_no_faster_than_the_client_takes_it(self, engine, host):
        made = 0

        async def much():
            nonlocal made
            while True:
                made += CHUNK_BYTES
                yield bytes(CHUNK_BYTES)

        async def fetch(ctx, request):
            return StreamingResponse(much())

        connection = await serving(engine, host, fetch)
        request = await connection.ask()
        await connection.take_answer(request)
        allowed = WINDOW_BYTES
        for index in range(1, 4):
            for _ in range(0, allowed, CHUNK_BYTES):
                await connection.take_tunnel(request)
            await settled(connection)
            sent = WINDOW_BYTES + (index - 1) * WINDOW_BYTES // 2
            assert made == sent
            await connection.tunnel(request, ToClientRequestChunk(b"", finish=False), index)
            allowed = WINDOW_BYTES // 2

    async def test_it_is_made_no_faster_than_the_engine_takes_it(self, engine, host):
        stuck = asyncio.Event()

        async def much():
            while True:
                unasked = asyncio.get_running_loop().call_later(0.2, stuck.set)
                yield bytes(CHUNK_BYTES)
                unasked.cancel()

        async def fetch(ctx, request):
            return StreamingResponse(much())

        runner = await host(fetch)
        connection = await engine.connection()
        await connection.running()
        connection.socket.transport.pause_reading()
        await connection.ask()
        await stuck.wait()
        assert runner._conversation.outbox.queued_bytes <= ROOM_BYTES + CHUNK_BYTES + 100
        connection.socket.transport.resume_reading()


class TestBodies:
    async def test_a_body_is_read_as_it_comes(self, engine, host):
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def listen(ctx, request):
            async for chunk in request.stream():
                heard.put_nowait(chunk)
            return Response.text("done")

        connection = await serving(engine, host, listen)
        request = await connection.ask(method="POST", body=b"a", stream=True)
        assert await heard.get() == b"a"
        await connection.tunnel(request, ToClientRequestChunk(b"bc", finish=False), index=1)
        assert await heard.get() == b"bc"
        await connection.tunnel(request, ToClientRequestChunk(b"", finish=True), index=2)
        assert (await connection.take_answer(request)).body == b"done"
        assert heard.empty()

    async def test_a_whole_body_can_be_read_as_a_stream_and_again(self, engine, host):
        async def twice(ctx, request):
            streamed = b"".join([chunk async for chunk in request.stream()])
            return Response(body=streamed + await request.body() + await request.body())

        connection = await serving(engine, host, twice)
        assert (await connection.fetch(method="POST", body=b"ab")).body == b"ababab"

    async def test_an_answer_may_come_before_the_body_is_there(self, engine, host):
        async def hasty(ctx, request):
            return Response.text("enough")

        connection = await serving(engine, host, hasty)
        request = await connection.ask(method="POST", stream=True)
        assert (await connection.take_answer(request)).body == b"enough"
        await connection.tunnel(request, ToClientRequestChunk(b"b", finish=True), index=1)
        await settled(connection)

    async def test_an_upload_the_client_breaks_off_ends_the_handler(self, engine, host):
        begun, ended = asyncio.Event(), asyncio.Event()

        async def listen(ctx, request):
            begun.set()
            try:
                return Response(body=await request.body())
            finally:
                ended.set()

        connection = await serving(engine, host, listen)
        request = await connection.ask(method="POST", body=b"a", stream=True)
        await begun.wait()
        await connection.tunnel(request, ToClientRequestAbort(), index=1)
        await ended.wait()

    async def test_an_actor_that_does_not_read_answers_413_when_it_does(self, engine, host):
        read = asyncio.Event()

        async def late(ctx, request):
            await read.wait()
            return Response(body=b"".join([chunk async for chunk in request.stream()]))

        connection = await serving(engine, host, late)
        request = await connection.ask(method="POST", stream=True)
        for index in range(1, 4):
            await connection.tunnel(request, ToClientRequestChunk(bytes(UNREAD_BYTES // 2), finish=False), index)
        await settled(connection)
        read.set()
        assert (await connection.take_answer(request)).status == 413
