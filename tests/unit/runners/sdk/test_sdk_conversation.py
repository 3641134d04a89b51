import asyncio

from runners.protocol.codec import decode_to_server
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    CommandStartActor,
    CommandWrapper,
    MessageId,
    ProtocolMetadata,
    ToClientCommands,
    ToClientInit,
    ToClientPing,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToServer,
    ToServerEvents,
    ToServerTunnelMessage,
)
from runners.sdk import Registry, Response
from runners.sdk.conversation import Conversation

INIT = ToClientInit("run1", ProtocolMetadata(15_000, 60_000, None))
START = CommandWrapper(ActorCheckpoint("a1", 0, 0), CommandStartActor(ActorConfig("actor", None, 1, None), []))
REQUEST = ToClientTunnelMessage(
    MessageId(b"gate", b"0001", 0), ToClientRequestStart("a1", "GET", "/", {}, None, stream=False)
)


async def written(conversation: Conversation) -> list[ToServer]:
    """Write what the conversation has to say, and return it."""
    frames = []

    async def send(frame):
        frames.append(frame)

    pump = asyncio.create_task(conversation.outbox.pump(send))
    await conversation.outbox.emptied()
    pump.cancel()
    return [decode_to_server(frame, 7) for frame in frames]


async def test_of_what_a_connection_could_not_carry_answers_come_first_on_the_next_and_events_once():
    answered = asyncio.Event()

    async def hello(ctx, request):
        asyncio.get_running_loop().call_soon(answered.set)
        return Response.text("hello")

    conversation = Conversation(Registry({"actor": hello}))
    conversation.receive(INIT)
    conversation.receive(ToClientPing(1))
    conversation.receive(ToClientCommands([START]))
    conversation.receive(REQUEST)
    await answered.wait()
    conversation.disconnected()
    conversation.receive(INIT)
    answer, events = await written(conversation)
    assert isinstance(answer, ToServerTunnelMessage)
    assert isinstance(events, ToServerEvents)
    assert [event.checkpoint for event in events.events] == [ActorCheckpoint("a1", 0, 0)]
    await conversation.end()
