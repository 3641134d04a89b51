"""Wakes called together: what gathers while one round of looks and wakes is under way goes into the next.

A storm of wakes thus costs a few queries and round trips, and a single wake no more than it did.
"""

import asyncio
from weakref import WeakKeyDictionary

from gateway.looks import Call, look_and_wake
from gateway.watch import Look
from orchestrator.db import run_db

MOST = 256
"""Calls in one round: few enough for one query's parameters, and for a wake not to wait for many others."""

_Waiting = tuple[Call, asyncio.Future[Look]]


class Caller:
    """One per event loop."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []
        self._round: asyncio.Task[None] | None = None

    async def __call__(self, call: Call) -> Look:
        """Return what the actor's row says, having posted a wake if it needs one.

        Raises whatever kept the round from it: a database or a Redis that is away.
        """
        answer: asyncio.Future[Look] = asyncio.get_running_loop().create_future()
        self._waiting.append((call, answer))
        if self._round is None:
            self._round = asyncio.create_task(self._rounds())
        return await answer

    async def _rounds(self) -> None:
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
                await _round([(call, answer) for call, answer in now if not answer.done()])
        finally:
            self._round = None


async def _round(waiting: list[_Waiting]) -> None:
    try:
        looks = await run_db(look_and_wake, [call for call, _ in waiting])
    except Exception as error:
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(error)
        return
    for (_, answer), look in zip(waiting, looks, strict=True):
        if not answer.done():
            answer.set_result(look)


_callers: WeakKeyDictionary[asyncio.AbstractEventLoop, Caller] = WeakKeyDictionary()


async def call_actor(call: Call) -> Look:
    """Look at an actor and wake it if need be, together with whatever else this process wakes just now."""
    loop = asyncio.get_running_loop()
    caller = _callers.get(loop)
    if caller is None:
        caller = _callers[loop] = Caller()
    return await caller(call)
