import asyncio

import pytest

from runners.protocol.messages import (
    HibernatingRequest,
    ToClientPing,
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToClientRequestStart,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerPong,
    ToServerResponseStart,
    ToServerTunnelMessage,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketOpen,
)
from runners.protocol.tunnel import MAX_PAYLOAD_BYTES
from runners.sdk import Actor, Response, WebSocketClosed
from tests.support.scripted_engine import GATEWAY, stop

WS = b"sock"
INTERNAL_ERROR = ToServerResponseStart(
    500, {"content-type": "text/plain", "content-length": "21"}, b"Internal Server Error", stream=False
)
NOT_HERE = ToServerResponseStart(503, {"x-rivet-error": "runner.actor_not_found"}, None, stream=False)


async def echo(ctx, request):
    said = [request.method, request.path, request.query, dict(request.headers), await request.text()]
    return Response.json(said, status=201, headers={"X-Actor": ctx.actor_id})


def answers(connection) -> list[object]:
    return [message.message_kind for message in connection.received if isinstance(message, ToServerTunnelMessage)]


async def settled(connection) -> None:
    """Wait until the runner has dealt with everything sent before."""
    await connection.send(ToClientPing(1))
    await connection.take(ToServerPong)


class TestHttp:
    async def test_a_request_reaches_the_actor_and_its_answer_comes_back_whole(self, engine, host):
        await host(echo)
        connection = await engine.connection()
        await connection.running()
        answer = await connection.fetch("/a%20b?x=1&y", method="POST", headers={"host": "h"}, body=b"hi")
        body = b'["POST", "/a%20b", "x=1&y", {"host": "h"}, "hi"]'
        headers = {"x-actor": "a1", "content-type": "application/json", "content-length": str(len(body))}
        assert answer == ToServerResponseStart(201, headers, body, stream=False)

    async def test_requests_are_served_side_by_side(self, engine, host):
        both = asyncio.Barrier(2)

        async def meet(ctx, request):
            await both.wait()
            return Response()

        await host(meet)
        connection = await engine.connection()
        await connection.running()
        for request in [await connection.ask(), await connection.ask()]:
            assert (await connection.take_answer(request)).status == 200

    @pytest.mark.parametrize("error", [ValueError("secret"), asyncio.CancelledError(), TimeoutError()])
    async def test_a_handler_that_fails_answers_500_and_tells_no_details(self, engine, host, error):
        async def broken(ctx, request):
            raise error

        await host(broken)
        connection = await engine.connection()
        await connection.running()
        assert await connection.fetch() == INTERNAL_ERROR

    @pytest.mark.parametrize("value", [None, {"count": 1}, "text"])
    async def test_what_is_no_response_answers_500(self, engine, host, value):
        async def confused(ctx, request):
            return value

        await host(confused)
        connection = await engine.connection()
        await connection.running()
        assert await connection.fetch() == INTERNAL_ERROR

    async def test_a_request_for_an_actor_that_is_not_here_is_answered(self, engine, host):
        await host(echo)
        connection = await engine.connection()
        assert await connection.fetch(actor_id="stranger") == NOT_HERE

    @pytest.mark.parametrize(("excess", "status"), [(0, 200), (1, 500)])
    async def test_an_answer_may_be_of_20_mib(self, engine, host, excess, status):
        async def large(ctx, request):
            return Response(body=bytes(MAX_PAYLOAD_BYTES + excess))

        await host(large)
        connection = await engine.connection()
        await connection.running()
        answer = await connection.fetch()
        assert answer.status == status
        assert len(answer.body) == (MAX_PAYLOAD_BYTES if status == 200 else 21)
        await settled(connection)

    async def test_an_aborted_request_is_cancelled_and_not_answered(self, engine, host):
        asked, cancelled = asyncio.Event(), asyncio.Event()

        async def endless(ctx, request):
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        await host(endless)
        connection = await engine.connection()
        await connection.running()
        request = await connection.ask()
        await asked.wait()
        await connection.tunnel(request, ToClientRequestAbort(), index=1)
        await cancelled.wait()
        await settled(connection)
        assert answers(connection) == []

    async def test_a_body_that_comes_in_chunks_is_given_whole(self, engine, host):
        await host(echo)
        connection = await engine.connection()
        await connection.running()
        request = await connection.ask(method="POST", body=b"a", stream=True)
        await connection.tunnel(request, ToClientRequestChunk(b"b", finish=False), index=1)
        await connection.tunnel(request, ToClientRequestChunk(b"c", finish=True), index=2)
        assert (await connection.take_answer(request)).body.endswith(b'"abc"]')

    async def test_a_body_in_chunks_has_its_limit(self, engine, host):
        await host(echo)
        connection = await engine.connection()
        await connection.running()
        request = await connection.ask(method="POST", body=b"a", stream=True)
        await connection.tunnel(request, ToClientRequestChunk(bytes(MAX_PAYLOAD_BYTES), finish=False), index=1)
        assert (await connection.take_answer(request)).status == 413
        await connection.tunnel(request, ToClientRequestChunk(b"c", finish=True), index=2)
        await settled(connection)
        assert len(answers(connection)) == 1

    async def test_a_request_begun_anew_under_the_same_id_is_answered_once(self, engine, host):
        asked: asyncio.Queue[str] = asyncio.Queue()
        answer = asyncio.Event()

        async def slow(ctx, request):
            asked.put_nowait(request.path)
            await answer.wait()
            return Response.text(request.path)

        await host(slow)
        connection = await engine.connection()
        await connection.running()
        request = await connection.ask("/first")
        await asked.get()
        await connection.tunnel(request, ToClientRequestStart("a1", "GET", "/second", {}, None, stream=False))
        await asked.get()
        answer.set()
        assert (await connection.take_answer(request)).body == b"/second"
        await settled(connection)
        assert len(answers(connection)) == 1


class Echo(Actor):
    """Answers every message with itself, and notes how the socket ended."""

    ends: list[tuple[int, str]] = []

    async def websocket(self, ctx, socket):
        await socket.send(socket.request.path)
        try:
            while True:
                message = await socket.receive()
                if message == "bye":
                    await socket.close(3000, "as you wish")
                elif message == "fail":
                    raise ValueError("no luck")
                elif message == "leave":
                    return
                else:
                    await socket.send(message)
        except WebSocketClosed as closed:
            self.ends.append((closed.code, closed.reason))


class TestWebSocket:
    async def opened(self, engine, host, actor=Echo):
        await host(actor)
        connection = await engine.connection()
        await connection.running()
        await connection.tunnel(WS, ToClientWebSocketOpen("a1", "/ws?x=1", {}))
        assert await connection.take_tunnel(WS) == ToServerWebSocketOpen(can_hibernate=False)
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessage(b"/ws", binary=False)
        return connection

    async def test_messages_go_both_ways_as_text_and_binary_and_are_numbered(self, engine, host):
        connection = await self.opened(engine, host)
        for index, message in enumerate([(b"\xc3\xa9", False), (b"\xff", True), (b"", False)], start=1):
            await connection.tunnel(WS, ToClientWebSocketMessage(*message), index)
            assert await connection.take_tunnel(WS) == ToServerWebSocketMessage(*message)
        indexes = [m.message_id.message_index for m in connection.received if isinstance(m, ToServerTunnelMessage)]
        assert indexes == [0, 1, 2, 3, 4]

    @pytest.mark.parametrize(
        ("message", "close"),
        [
            (b"bye", ToServerWebSocketClose(3000, "as you wish", hibernate=False)),
            (b"leave", ToServerWebSocketClose(1000, None, hibernate=False)),
            (b"fail", ToServerWebSocketClose(1011, "Server Error", hibernate=False)),
        ],
    )
    async def test_the_actor_closes_it_with_a_code_by_returning_or_by_failing(self, engine, host, message, close):
        connection = await self.opened(engine, host)
        await connection.tunnel(WS, ToClientWebSocketMessage(message, binary=False), 1)
        assert await connection.take_tunnel(WS) == close
        await settled(connection)
        assert sum(isinstance(kind, ToServerWebSocketClose) for kind in answers(connection)) == 1

    @pytest.mark.parametrize(
        ("close", "end"),
        [
            (ToClientWebSocketClose(4000, "enough"), (4000, "enough")),
            (ToClientWebSocketClose(None, None), (1005, "")),
        ],
    )
    async def test_the_client_closes_it_after_its_last_message_is_read(self, engine, host, close, end):
        ended = asyncio.Event()

        class Noting(Echo):
            ends = []

            async def websocket(self, ctx, socket):
                await super().websocket(ctx, socket)
                ended.set()

        connection = await self.opened(engine, host, Noting)
        await connection.tunnel(WS, ToClientWebSocketMessage(b"last", binary=False), 1)
        await connection.tunnel(WS, close, 2)
        await ended.wait()
        assert Noting.ends == [end]

    async def test_iterating_ends_with_the_socket(self, engine, host):
        heard, ended = [], asyncio.Event()

        class Listening(Actor):
            async def websocket(self, ctx, socket):
                await socket.send(socket.request.path)
                heard.extend([message async for message in socket])
                ended.set()

        connection = await self.opened(engine, host, Listening)
        for index, data in enumerate([b"a", b"b"], start=1):
            await connection.tunnel(WS, ToClientWebSocketMessage(data, binary=False), index)
        await connection.tunnel(WS, ToClientWebSocketClose(1000, None), 3)
        await ended.wait()
        assert heard == ["a", "b"]

    async def test_a_stop_closes_it_before_the_actor_is_gone(self, engine, host):
        connection = await self.opened(engine, host)
        await connection.command(stop())
        close = ToServerWebSocketClose(1000, "actor.stopped", hibernate=False)
        assert await connection.take_tunnel(WS) == close
        await connection.take_state()

    async def test_an_actor_without_a_handler_refuses_it(self, engine, host):
        await host(Actor)
        connection = await engine.connection()
        await connection.running()
        await connection.tunnel(WS, ToClientWebSocketOpen("a1", "/", {}))
        close = ToServerWebSocketClose(1011, "ws.not_supported", hibernate=False)
        assert await connection.take_tunnel(WS) == close

    async def test_one_for_an_actor_that_is_not_here_is_refused(self, engine, host):
        await host(Echo)
        connection = await engine.connection()
        await connection.tunnel(WS, ToClientWebSocketOpen("stranger", "/", {}))
        close = ToServerWebSocketClose(1011, "runner.actor_not_found", hibernate=False)
        assert await connection.take_tunnel(WS) == close

    async def test_an_actor_that_does_not_read_loses_it(self, engine, host):
        class Deaf(Actor):
            async def websocket(self, ctx, socket):
                await socket.send(socket.request.path)
                await asyncio.Event().wait()

        connection = await self.opened(engine, host, Deaf)
        for index in range(1, 4):
            await connection.tunnel(WS, ToClientWebSocketMessage(bytes(11 * 2**20), binary=True), index)
        close = ToServerWebSocketClose(1011, "ws.receive_limit_reached", hibernate=False)
        assert await connection.take_tunnel(WS) == close

    async def test_a_message_of_more_than_20_mib_is_refused_and_the_socket_stays(self, engine, host):
        class Loud(Actor):
            async def websocket(self, ctx, socket):
                await socket.send(socket.request.path)
                with pytest.raises(ValueError, match="bytes"):
                    await socket.send(bytes(MAX_PAYLOAD_BYTES + 1))
                await socket.send("quiet")

        connection = await self.opened(engine, host, Loud)
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessage(b"quiet", binary=False)

    async def test_sockets_that_hibernated_under_another_runner_are_closed(self, engine, host):
        await host(Echo)
        connection = await engine.connection()
        await connection.running(hibernating=(HibernatingRequest(GATEWAY, WS),))
        close = ToServerWebSocketClose(1000, "ws.meta_not_found_during_restore", hibernate=False)
        assert await connection.take_tunnel(WS) == close
