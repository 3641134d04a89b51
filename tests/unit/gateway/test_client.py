"""Work is done for a client no longer than it stays."""

import asyncio

import pytest

from gateway.client import PATIENCE_SECONDS, Client, ClientGone

LONG = 20.0


class Caller:
    """A client that hangs up when told, and says whether it was listened to."""

    def __init__(self):
        self.left = asyncio.Event()
        self.listened_to = False
        self.client = Client(self._listen)

    async def _listen(self):
        self.listened_to = True
        await self.left.wait()


def future():
    return asyncio.get_running_loop().create_future()


async def test_who_gets_an_answer_soon_is_not_even_listened_to():
    caller, work = Caller(), future()
    asyncio.get_running_loop().call_soon(work.set_result, 1)
    assert await caller.client.while_connected(work) == 1
    await asyncio.sleep(3 * PATIENCE_SECONDS)
    assert not caller.listened_to


@pytest.mark.parametrize("listening", [False, True])
async def test_with_the_client_its_work_is_gone(listening):
    caller, work = Caller(), future()
    if listening:
        caller.client.listen()
    caller.left.set()
    with pytest.raises(ClientGone):
        await caller.client.while_connected(work, LONG)
    assert work.cancelled()


async def test_for_a_client_that_is_gone_nothing_is_begun_even_if_the_answer_is_there():
    caller, work = Caller(), future()
    caller.left.set()
    await caller.client.listen()
    work.set_result(1)
    with pytest.raises(ClientGone):
        await caller.client.while_connected(work)


@pytest.mark.parametrize("seconds", [0, PATIENCE_SECONDS / 2, PATIENCE_SECONDS * 3])
async def test_work_has_a_limit(seconds):
    caller, work = Caller(), future()
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(TimeoutError):
        await caller.client.while_connected(work, seconds)
    assert loop.time() - began > seconds - 0.01
    assert work.cancelled()


async def test_an_answer_that_takes_its_time_comes_through():
    caller, work = Caller(), future()
    asyncio.get_running_loop().call_later(3 * PATIENCE_SECONDS, work.set_result, 1)
    assert await caller.client.while_connected(work, LONG) == 1
    assert caller.listened_to


async def test_an_error_is_passed_on():
    async def fail():
        raise KeyError("x")

    with pytest.raises(KeyError):
        await Caller().client.while_connected(fail())


async def test_who_is_cancelled_is_not_told_that_the_client_has_left():
    caller, work = Caller(), future()
    waiting = asyncio.create_task(caller.client.while_connected(work, LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert work.cancelled()


async def test_who_is_cancelled_as_the_client_leaves_is_cancelled():
    caller, work = Caller(), future()
    gone = caller.client.listen()
    waiting = asyncio.create_task(caller.client.while_connected(work, LONG))
    await asyncio.sleep(0)
    gone.add_done_callback(lambda _: waiting.cancel())  # right after the wait has heard of it
    caller.left.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_many_wait_side_by_side():
    callers = [Caller() for _ in range(5)]
    works = [future() for _ in callers]
    waiting = [
        asyncio.create_task(caller.client.while_connected(work, LONG))
        for caller, work in zip(callers, works, strict=True)
    ]
    await asyncio.sleep(0)
    works[0].set_result(0)
    for caller in callers[1:3]:
        caller.left.set()
    assert await waiting[0] == 0
    for one in waiting[1:3]:
        with pytest.raises(ClientGone):
            await one
    for number in (3, 4):
        works[number].set_result(number)
        assert await waiting[number] == number
    assert [caller.listened_to for caller in callers] == [False, True, True, True, True]
