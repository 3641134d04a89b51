import asyncio

from runners.protocol.codec import decode_to_server
from runners.sdk import Request, Response
from runners.sdk.actor import FunctionActor
from runners.sdk.channel import Channel
from runners.sdk.clock import SystemClock
from runners.sdk.exchange import HttpExchange
from runners.sdk.home import Home, Kind
from runners.sdk.outbox import Outbox


async def test_an_answer_given_at_the_moment_of_a_refusal_stays_the_only_one():
    frames = []

    async def send(frame):
        frames.append(frame)

    async def hello(ctx, request):
        return Response.text("hello")

    outbox = Outbox()
    exchange = HttpExchange(Channel(b"gate", b"0001", outbox), lambda over: None, Request("GET", "/"))
    exchange.begin(
        FunctionActor(hello), None, Home(None, None, SystemClock(), Kind(), call=None, set_alarm=None, sleep=None)
    )
    await asyncio.sleep(0)
    assert exchange.task.done()  # though nobody has been told yet
    exchange.refuse()
    pump = asyncio.create_task(outbox.pump(send))
    await outbox.emptied()
    pump.cancel()
    assert [decode_to_server(frame, 7).message_kind.status for frame in frames] == [200]
