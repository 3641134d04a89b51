"""Many WebSockets at once, and many that hibernate while everything moves, checked by a model (DESIGN §9, I7).

    CROWD=1000x100 STORM_SECONDS=60 pytest tests/integration/gateway/test_websocket_crowd.py

runs both at their full size.
"""

import asyncio
import contextlib
import os
import random

import pytest
from websockets.exceptions import ConnectionClosed

from gateway.models import HibernatingPair
from orchestrator.db import run_db
from tests.support.echo_runner import EchoRunner
from tests.support.gateway import NOTHING
from tests.support.live import actor_row, running_actor, wake
from tests.support.scripted_runner import SLEEP, dial
from tests.support.scripted_sockets import gateway_url
from tests.support.web import eventually

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(600)]

CLIENTS, MESSAGES = map(int, os.environ.get("CROWD", "200x20").split("x"))
STORM_SECONDS = float(os.environ.get("STORM_SECONDS", "6"))
SOCKETS, ACTORS = 200, 50


async def test_nothing_is_lost_or_reordered_in_a_crowd(worker, engine_url, namespace, held):
    runner = EchoRunner(engine_url, can_hibernate=False)
    await runner.connect()
    actor_id = await running_actor(namespace)

    async def converse(number):
        async with dial(f"{gateway_url(engine_url, actor_id)}/{number}") as client:
            sent = [f"{number}:{count}" for count in range(MESSAGES)]
            for message in sent:
                await client.send(message)
            assert [await client.recv() for _ in sent] == sent

    try:
        await asyncio.gather(*(converse(number) for number in range(CLIENTS)))
        await eventually(lambda: sum(runner.closes.values()) == CLIENTS)
        assert set(runner.closes.values()) == {1}
        assert not runner.errors
        await eventually(lambda: held() == NOTHING)
    finally:
        await runner.end()


class Guest:
    """One client of the storm: counts what it says and what it hears, the same in the same order."""

    def __init__(self, engine_url, actor_id, number, chance):
        self.actor_id, self.path, self.chance = actor_id, f"/{number}", chance
        self.url = gateway_url(engine_url, actor_id) + self.path
        self.said = self.heard = 0
        self.closed_by_actor = None

    async def run(self, until):
        async with dial(self.url) as client:
            listener = asyncio.create_task(self.listen(client))
            loop = asyncio.get_running_loop()
            leaves_early = self.chance.random() < 0.4
            leaves_at = (
                loop.time() + self.chance.uniform(0, max(until - loop.time(), 0)) if leaves_early else until
            )
            while loop.time() < leaves_at and not listener.done():
                for _ in range(self.chance.choice((1, 1, 1, 5, 20))):
                    with contextlib.suppress(ConnectionClosed):
                        await client.send(str(self.said))
                        self.said += 1
                await asyncio.sleep(self.chance.choice((0.01, 0.1, 0.5, 1.0)))
            if not leaves_early and not listener.done():  # hear the rest out
                await eventually(lambda: self.heard == self.said or listener.done(), 60)
            with contextlib.suppress(ConnectionClosed):
                await client.close(4000 + self.said % 900)
            await listener
        if self.closed_by_actor is None and not leaves_early:
            assert self.heard == self.said, f"{self.path} said {self.said} and heard {self.heard}"

    async def listen(self, client):
        with contextlib.suppress(ConnectionClosed):
            async for message in client:
                assert message == str(self.heard), f"{self.path} heard {message} instead of {self.heard}"
                self.heard += 1
        if client.protocol.close_rcvd_then_sent:
            self.closed_by_actor = (client.close_code, client.close_reason)
            assert self.closed_by_actor == (4999, "by the actor"), self.closed_by_actor


async def unrest(runner, actors, chance, until):
    """Have random actors sleep and wake, and random sockets closed by their actors."""
    loop = asyncio.get_running_loop()
    closed = set()
    while loop.time() < until:
        actor_id = chance.choice(actors)
        what = chance.random()
        if what < 0.75:
            if actor_id in runner.lives:
                await runner.say(actor_id, SLEEP)
        elif what < 0.95:
            await wake(actor_id)
        else:
            awake = [ids for ids, book in runner.books.items() if book.awake and book.actor_id == actor_id]
            if awake:
                ids = chance.choice(awake)
                closed.add(runner.books[ids].name)
                await runner.close_socket(ids, 4999, "by the actor")
        await asyncio.sleep(chance.uniform(0, 0.04))
    return closed


async def test_a_storm_of_sleep_loses_nothing(worker, engine_url, namespace, held):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    runner = EchoRunner(engine_url, slots=ACTORS)
    await runner.connect()
    actors = [await running_actor(namespace) for _ in range(ACTORS)]
    until = asyncio.get_running_loop().time() + STORM_SECONDS
    guests = [
        Guest(engine_url, actors[number % ACTORS], number, random.Random(chance.random()))
        for number in range(SOCKETS)
    ]
    try:
        closed, *_ = await asyncio.gather(
            unrest(runner, actors, chance, until), *(guest.run(until) for guest in guests)
        )
        assert not runner.errors
        # whoever left while its actor slept was told of; what a stop took along is found at the next start
        await eventually(lambda: held() == NOTHING, 60)
        await eventually(lambda: run_db(lambda: not HibernatingPair.objects.exists()))
        for actor_id in actors:
            if actor_id not in runner.lives:
                await wake(actor_id)
        await eventually(lambda: not runner.books or all(book.awake for book in runner.books.values()), 30)
        for actor_id in {book.actor_id for book in runner.books.values()}:  # the close came with the stop
            await runner.say(actor_id, SLEEP)
            await eventually(lambda actor_id=actor_id: is_asleep(actor_id))
            await wake(actor_id)
        await eventually(lambda: not runner.books, 30)
        assert not runner.errors
        assert runner.closes == runner.opens
        assert runner.opens.keys() <= {guest.path for guest in guests}  # who left at once was not announced
        assert {guest.path for guest in guests if guest.closed_by_actor} <= closed
        assert len(runner.started) > ACTORS
    finally:
        said = sum(guest.said for guest in guests)
        print(f"{said} messages, {len(runner.started)} lives, {len(runner.listed_in_vain)} listed in vain")
        await runner.end()


async def is_asleep(actor_id):
    return (await actor_row(actor_id)).status == "asleep"
