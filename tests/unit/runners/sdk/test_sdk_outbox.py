import asyncio

import pytest

from runners.sdk.outbox import Outbox


class Socket:
    """Takes frames until it breaks at one of them."""

    def __init__(self, breaks_at: bytes | None = None) -> None:
        self.taken: list[bytes] = []
        self._breaks_at = breaks_at

    async def send(self, frame: bytes) -> None:
        if frame == self._breaks_at:
            raise ConnectionError
        self.taken.append(frame)


async def pumped(outbox: Outbox) -> list[bytes]:
    """Write everything to a socket that works and return it."""
    socket = Socket()
    pump = asyncio.create_task(outbox.pump(socket.send))
    await outbox.emptied()
    pump.cancel()
    return socket.taken


async def test_frames_go_out_in_order_and_an_urgent_one_first():
    outbox = Outbox()
    for frame in (b"1", b"2"):
        outbox.put(frame)
    outbox.put(b"pong", first=True)
    assert await pumped(outbox) == [b"pong", b"1", b"2"]


async def test_an_urgent_frame_does_not_overtake_what_was_to_stay_in_order():
    outbox = Outbox()
    for frame in (b"1", b"2"):
        outbox.put(frame)
    outbox.keep_order()
    outbox.put(b"3")
    outbox.put(b"pong", first=True)
    assert await pumped(outbox) == [b"1", b"2", b"pong", b"3"]
    outbox.put(b"4")
    outbox.put(b"pong", first=True)
    assert await pumped(outbox) == [b"pong", b"4"]


async def test_only_durable_frames_go_over_to_the_next_connection():
    outbox = Outbox()
    for number in range(4):
        outbox.put(b"%d" % number, durable=number % 2 == 0)
    outbox.disconnected()
    assert await pumped(outbox) == [b"0", b"2"]


@pytest.mark.parametrize(("durable", "left"), [(True, [b"1", b"2"]), (False, [b"2"])])
async def test_a_frame_whose_connection_breaks_stays_at_the_front_if_it_is_durable(durable, left):
    outbox = Outbox()
    outbox.put(b"0")
    outbox.put(b"1", durable=durable)
    outbox.put(b"2", durable=True)
    with pytest.raises(ConnectionError):
        await outbox.pump(Socket(breaks_at=b"1").send)
    outbox.disconnected()
    assert await pumped(outbox) == left


async def test_a_sender_waits_while_too_much_is_queued():
    outbox = Outbox(room_bytes=3)
    outbox.put(b"123", durable=True)
    await outbox.room()
    outbox.put(b"4", durable=True)
    waiting = asyncio.create_task(outbox.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await pumped(outbox)
    await waiting


async def test_a_cleared_outbox_is_empty_and_has_room():
    outbox = Outbox(room_bytes=0)
    outbox.put(b"1", durable=True)
    outbox.clear()
    await outbox.room()
    assert await pumped(outbox) == []
