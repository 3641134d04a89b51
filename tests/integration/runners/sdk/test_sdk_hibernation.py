import asyncio
import json
from datetime import timedelta

import pytest

from runners.protocol.messages import (
    HibernatingRequest,
    KvListRequest,
    KvListResponse,
    KvMetadata,
    KvPutRequest,
    KvPutResponse,
    ToClientKvResponse,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerKvRequest,
    ToServerTunnelMessage,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)
from runners.sdk import Actor, WebSocketClosed
from runners.sdk.socket_memory import SocketMemory
from runners.sdk.testing import LocalEngine
from tests.support.scripted_engine import GATEWAY, start, stop

SECOND = timedelta(seconds=1)
WS = b"sock"
KEY = SocketMemory.key_of(GATEWAY, WS)


class Room(Actor):
    """Tells everybody what somebody says, and notes who came and went."""

    hibernate_websockets = True
    sleep_after = timedelta(seconds=10)
    initial_state = {"said": 0}
    story: list[str]

    def __init_subclass__(cls):
        cls.story = []

    async def websocket(self, ctx, socket):
        if not socket.restored:
            socket.state["name"] = socket.request.params["name"]
        self.story.append(f"{'back' if socket.restored else 'came'} {socket.state['name']} in {ctx.generation}")
        async for message in socket:
            ctx.state["said"] += 1
            for other in ctx.sockets:
                await other.send(f"{socket.state['name']}: {message} ({ctx.state['said']})")
        self.story.append(f"left {socket.state['name']} in {ctx.generation}")


@pytest.fixture
def room():
    class Fresh(Room): ...

    return Fresh


class TestWithTheTestKit:
    async def test_sockets_stay_open_while_their_actor_sleeps_and_wake_it(self, room):
        async with LocalEngine({"room": room}) as engine:
            actor = engine.actor("room", key="r")
            anna = await actor.websocket("/?name=anna")
            bert = await actor.websocket("/?name=bert")
            await anna.send("hello")
            assert [await anna.recv(), await bert.recv()] == ["anna: hello (1)"] * 2
            await engine.advance(10 * SECOND)
            assert not actor.is_awake
            assert anna.open
            await bert.send("still there?")
            assert [await anna.recv(), await bert.recv()] == ["bert: still there? (2)"] * 2
            await anna.close()
            await engine.advance(SECOND)
            assert room.story == [
                "came anna in 0",
                "came bert in 0",
                "back anna in 1",
                "back bert in 1",
                "left anna in 1",
            ]
            assert len([key for key in actor.kv if b"socket" in key]) == 1

    async def test_a_close_while_the_actor_sleeps_wakes_it_and_its_handler_ends(self, room):
        async with LocalEngine({"room": room}) as engine:
            actor = engine.actor("room")
            anna = await actor.websocket("/?name=anna")
            await actor.sleep()
            await anna.close(4000, "bye")
            await engine.advance(SECOND)
            assert room.story == ["came anna in 0", "back anna in 1", "left anna in 1"]
            assert not any(b"socket" in key for key in actor.kv)

    async def test_messages_are_acknowledged_when_they_are_dealt_with_and_saved(self, room):
        async with LocalEngine({"room": room}) as engine:
            actor = engine.actor("room")
            anna = await actor.websocket("/?name=anna")
            for word in ["a", "b", "c"]:
                await anna.send(word)
                await anna.recv()
            assert anna.unacknowledged == 3
            await engine.advance(SECOND)
            assert anna.unacknowledged == 0

    async def test_after_a_loss_messages_come_again_and_count_once(self, room):
        """Before the loss "a" is dealt with and saved, "b" dealt with and not saved: only "b" comes again."""
        async with LocalEngine({"room": room}) as engine:
            actor = engine.actor("room")
            anna = await actor.websocket("/?name=anna")
            await anna.send("a")
            await engine.advance(SECOND)
            await anna.send("b")
            assert [await anna.recv(), await anna.recv()] == ["anna: a (1)", "anna: b (2)"]
            await actor.lose()
            assert await anna.recv() == "anna: b (2)"
            await anna.send("c")
            assert await anna.recv() == "anna: c (3)"

    async def test_a_message_in_the_handlers_hands_at_a_stop_is_dealt_with_first(self):
        go, heard = asyncio.Event(), []

        class Slow(Actor):
            hibernate_websockets = True

            async def websocket(self, ctx, socket):
                async for message in socket:
                    await go.wait()
                    heard.append((message, ctx.generation))

        async with LocalEngine({"slow": Slow}) as engine:
            actor = engine.actor("slow")
            anna = await actor.websocket()
            await anna.send("a")
            await anna.send("b")
            stopping = asyncio.create_task(actor.sleep())
            await engine.advance(SECOND)
            go.set()
            await stopping
            assert heard == [("a", 0)]
            await engine.advance(SECOND)
            assert heard == [("a", 0), ("b", 1)]
            assert anna.unacknowledged == 0

    async def test_a_handler_that_never_asks_for_a_message_does_not_hold_up_the_sleep(self):
        class Pushing(Actor):
            hibernate_websockets = True

            async def websocket(self, ctx, socket):
                await asyncio.Event().wait()

        async with LocalEngine({"pushing": Pushing}) as engine:
            actor = engine.actor("pushing")
            anna = await actor.websocket()
            async with asyncio.timeout(5):
                await actor.sleep()
            assert anna.open

    async def test_a_handler_that_returns_closes_its_socket_for_good(self):
        class Brief(Actor):
            hibernate_websockets = True

            async def websocket(self, ctx, socket):
                await socket.receive()

        async with LocalEngine({"brief": Brief}) as engine:
            actor = engine.actor("brief")
            anna = await actor.websocket()
            await anna.send("a")
            with pytest.raises(WebSocketClosed):
                await anna.recv()
            await actor.sleep()
            assert not actor.kv

    async def test_a_destroyed_actor_closes_its_sockets(self):
        class Ending(Actor):
            hibernate_websockets = True

            async def websocket(self, ctx, socket):
                await socket.receive()
                ctx.destroy()
                await asyncio.Event().wait()

        async with LocalEngine({"ending": Ending}) as engine:
            anna = await engine.actor("ending").websocket()
            await anna.send("a")
            with pytest.raises(WebSocketClosed, match="stopped"):
                await anna.recv()

    async def test_each_socket_may_hibernate_or_not(self):
        class Choosy(Actor):
            def can_hibernate(self, request):
                return request.path == "/yes"

            async def websocket(self, ctx, socket):
                async for _ in socket:
                    pass

        async with LocalEngine({"choosy": Choosy}) as engine:
            actor = engine.actor("choosy")
            yes, no = await actor.websocket("/yes"), await actor.websocket("/no")
            await actor.sleep()
            assert (yes.open, no.open) == (True, False)


class Echo(Actor):
    hibernate_websockets = True

    async def websocket(self, ctx, socket):
        async for message in socket:
            await socket.send(message)


class Engine:
    """The store of one actor beside the scripted connection: a call is answered when the test says so."""

    def __init__(self, connection):
        self.connection = connection

    async def lists(self, record=None):
        call = await self.connection.take(ToServerKvRequest, lambda call: isinstance(call.data, KvListRequest))
        values = {} if record is None else {KEY: record}
        meta = [KvMetadata(b"", 0)] * len(values)
        response = KvListResponse(list(values), list(values.values()), meta)
        await self.connection.send(ToClientKvResponse(call.request_id, response))

    async def takes_put(self):
        return await self.connection.take(ToServerKvRequest, lambda call: isinstance(call.data, KvPutRequest))

    async def puts(self):
        call = await self.takes_put()
        await self.connection.send(ToClientKvResponse(call.request_id, KvPutResponse()))
        return dict(zip(call.data.keys, map(json.loads, call.data.values), strict=True))


def record(index=0, **state):
    return json.dumps({"target": "/ws?x=1", "headers": {"a": "b"}, "index": index, "state": state}).encode()


def message(data: bytes) -> ToClientWebSocketMessage:
    return ToClientWebSocketMessage(data, binary=False)


def said(connection):
    kinds = (one.message_kind for one in connection.received if isinstance(one, ToServerTunnelMessage))
    return [kind.data for kind in kinds if isinstance(kind, ToServerWebSocketMessage)]


class TestOnTheWire:
    @pytest.fixture
    async def begun(self, engine, host):
        """Start an actor and return the connection and the store, which has not told yet what it has."""
        connections = []

        async def begin(actor=Echo, hibernating=True, generation=1):
            await host(actor)
            connections.append(await engine.connection())
            pairs = (HibernatingRequest(GATEWAY, WS),) if hibernating else ()
            await connections[0].command(start(generation=generation, hibernating=pairs))
            return connections[0], Engine(connections[0])

        yield begin
        await connections[0].close()  # or the last save would wait for its answer

    async def test_a_socket_is_accepted_once_it_is_remembered(self, begun):
        connection, store = await begun(hibernating=False, generation=0)
        await store.lists()
        await connection.take_state()
        await connection.tunnel(WS, ToClientWebSocketOpen("a1", "/ws?x=1", {"a": "b"}))
        call = await store.takes_put()
        assert not any(isinstance(one, ToServerTunnelMessage) for one in connection.received)
        assert dict(zip(call.data.keys, call.data.values, strict=True)).keys() == {KEY}
        await connection.send(ToClientKvResponse(call.request_id, KvPutResponse()))
        assert await connection.take_tunnel(WS) == ToServerWebSocketOpen(can_hibernate=True)

    async def test_what_comes_before_it_is_restored_waits_and_no_open_is_sent(self, begun):
        heard = asyncio.Queue()

        class Listening(Echo):
            async def websocket(self, ctx, socket):
                heard.put_nowait(
                    (socket.restored, socket.state["who"], socket.request.target, dict(socket.request.headers))
                )
                async for message in socket:
                    heard.put_nowait(message)
                heard.put_nowait("end")

        connection, store = await begun(Listening)
        await connection.tunnel(WS, message(b"four"), 4)
        await connection.tunnel(WS, ToClientWebSocketClose(1000, None), 5)
        await store.lists(record(3, who="anna"))
        assert await heard.get() == (True, "anna", "/ws?x=1", {"a": "b"})
        assert [await heard.get(), await heard.get()] == ["four", "end"]
        assert not any(isinstance(one, ToServerTunnelMessage) for one in connection.received)

    async def test_repeated_messages_are_dropped_and_acknowledged_again(self, begun):
        connection, store = await begun()
        await store.lists(record(3))
        await connection.take_state(generation=1)
        for index in (2, 3, 4, 4):
            await connection.tunnel(WS, message(b"%d" % index), index)
        ack = ToServerWebSocketMessageAck(3)
        assert await connection.take_tunnel(WS) == ack
        assert await connection.take_tunnel(WS) == ack
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessage(b"4", binary=False)
        call = await store.takes_put()
        assert said(connection) == [b"4"]
        await connection.send(ToClientKvResponse(call.request_id, KvPutResponse()))
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessageAck(4)

    async def test_indexes_wrap(self, begun):
        connection, store = await begun()
        await store.lists(record(65_535))
        await connection.tunnel(WS, message(b"zero"), 0)
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessage(b"zero", binary=False)
        await store.puts()
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessageAck(0)

    async def test_a_gap_closes_the_socket(self, begun):
        connection, store = await begun()
        await store.lists(record(3))
        await connection.tunnel(WS, message(b"five"), 5)
        close = ToServerWebSocketClose(1008, "ws.message_index_skip", hibernate=False)
        assert await connection.take_tunnel(WS) == close

    async def test_one_that_nothing_is_known_of_is_closed(self, begun):
        connection, store = await begun()
        await store.lists()
        close = ToServerWebSocketClose(1000, "ws.meta_not_found_during_restore", hibernate=False)
        assert await connection.take_tunnel(WS) == close

    async def test_one_that_was_closed_unheard_ends_its_handler_without_a_word(self, begun):
        ended = asyncio.Queue()

        class Noting(Echo):
            async def websocket(self, ctx, socket):
                await super().websocket(ctx, socket)
                ended.put_nowait(socket.state["who"])

        connection, store = await begun(Noting, hibernating=False)
        await store.lists(record(3, who="anna"))
        assert await ended.get() == "anna"
        assert not any(isinstance(one, ToServerTunnelMessage) for one in connection.received)

    async def test_a_stop_leaves_it_open_and_acknowledges_before_the_actor_is_gone(self, begun):
        connection, store = await begun()
        await store.lists(record(3))
        await connection.tunnel(WS, message(b"four"), 4)
        await connection.take_tunnel(WS)
        await connection.command(stop(generation=1))
        assert (await store.puts())[KEY]["index"] == 4
        assert await connection.take_tunnel(WS) == ToServerWebSocketMessageAck(4)
        await connection.take_state(generation=1)
        kinds = [one.message_kind for one in connection.received if isinstance(one, ToServerTunnelMessage)]
        assert not any(isinstance(kind, ToServerWebSocketClose) for kind in kinds)
