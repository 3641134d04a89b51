"""How much of an answer may be on its way."""

import asyncio

from runners.sdk.window import Window


async def waits(window):
    room = asyncio.ensure_future(window.room())
    await asyncio.sleep(0)
    try:
        return not room.done()
    finally:
        room.cancel()


async def test_a_full_window_waits_until_half_of_it_is_taken():
    window = Window(100)
    window.sent(99)
    assert not await waits(window)
    window.sent(1)
    assert await waits(window)
    window.granted()
    assert not await waits(window)


async def test_one_that_was_overfilled_waits_for_longer():
    window = Window(100)
    window.sent(200)
    window.granted()
    window.granted()
    assert await waits(window)
    window.granted()
    assert not await waits(window)


async def test_a_grant_too_many_opens_it_no_further():
    window = Window(100)
    for _ in range(5):
        window.granted()
    window.sent(100)
    assert await waits(window)
