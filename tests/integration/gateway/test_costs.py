"""What a request, a message and a wake ask of the stores. What docs/performance.md says of it is held to here."""

import asyncio
import sys
from statistics import median

import pytest

from actors.services import sleep_actor
from gateway.hub import get_hub
from orchestrator import db
from orchestrator.db import run_db
from orchestrator.redis import get_redis
from tests.support.child import Child
from tests.support.cluster import WORKER
from tests.support.costs import counting
from tests.support.live import actor_row, has_status, running_actor
from tests.support.scripted_runner import connected
from tests.support.scripted_sockets import client_of, take_accepted
from tests.support.web import close_connections, eventually
from tests.support.workers import working

pytestmark = pytest.mark.django_db(transaction=True)

MANY = 200
ABREAST, EACH = 64, 10
WAKES = 10
NEVER_MS = 600_000
PREFIX = "torpor:celery:"  # of the broker's keys
WAKE_STATEMENTS = 16
WAKE_COMMANDS = 9
"""Of the engine itself; one more if the gateway's process does not yet listen for the actor."""
TASK_COMMANDS = 9
"""Of Celery, for each of a wake's two tasks: to take it off the queue and to acknowledge it."""
CELERYS = ("BRPOP", "MULTI", "EXEC", "ZADD", "HSET", "ZREM", "HDEL")


@pytest.fixture
def counted(transactional_db, redis_url, env):
    """Count what is asked; nothing is asked because time has passed."""
    env(runner_ping_interval_ms=NEVER_MS)
    close_connections(db._THREADS)
    with counting(redis_url) as counter:
        yield counter


@pytest.fixture
def tasks(counted):
    """A worker that does what tasks want, and no more."""
    with working(sweeping=False) as worker:
        yield worker


@pytest.fixture
def celery(counted, tmp_path):
    """A Celery worker, and no sweeper."""
    command = [sys.executable, *WORKER.format(celery="orchestrator.celery").split(), "costs@%h"]
    child = Child("worker", command, tmp_path / "worker.log")
    child.start()
    yield child
    child.stop()


async def asks_nothing(counted, work):
    """Say whether the work, done up to three times, asked nothing once: what comes with time may come then."""
    for _ in range(3):
        counted.take()
        await work()
        costs = counted.take()
        if not costs.commands and not costs.statements:
            return True
    raise AssertionError(str(costs))


async def asleep(actor_id):
    await run_db(sleep_actor, actor=await actor_row(actor_id))
    await has_status(actor_id, "asleep")


async def test_a_request_to_an_awake_actor_asks_nothing_of_the_stores(counted, tasks, host, client, namespace):
    await host()
    actor_id = await running_actor(namespace)
    tasks.pause()

    async def ask():
        for _ in range(MANY):
            assert (await client.get(f"/gateway/{actor_id}")).status_code == 200

    await ask()
    assert await asks_nothing(counted, ask)


async def test_a_message_of_a_websocket_asks_nothing_of_the_stores(counted, tasks, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id) as client:
        socket = await take_accepted(runner)
        tasks.pause()

        async def talk():
            for number in range(MANY):
                await client.send(str(number))
                await socket.send(await socket.take_text())
                assert await client.recv() == str(number)

        await talk()
        assert await asks_nothing(counted, talk)


async def test_a_wake_asks_no_more_of_the_stores_than_it_did(counted, tasks, host, client, namespace):
    await host()
    actor_id = await running_actor(namespace)
    wakes = []
    for _ in range(WAKES):
        await asleep(actor_id)
        tasks.pause()
        counted.take()
        tasks.go()
        await woken(client, actor_id)
        tasks.pause()
        wakes.append(counted.take())
        tasks.go()
        del wakes[-1].commands["BRPOP"]  # the queue's, and this worker's is no Celery
    assert median(costs.statements.total() for costs in wakes) <= WAKE_STATEMENTS, wakes
    assert median(costs.commands.total() for costs in wakes) <= WAKE_COMMANDS, wakes


async def test_a_wake_has_two_celery_tasks_at_the_most(counted, celery, host, client, namespace):
    await host()
    actor_id = await running_actor(namespace)
    wakes = []
    for _ in range(WAKES):
        await asleep(actor_id)
        await eventually(nothing_under_way)
        counted.take()
        await woken(client, actor_id)
        await eventually(nothing_under_way)
        wakes.append(sum(counted.take().commands[name] for name in CELERYS))
    assert 0 < median(wakes) <= 2 * TASK_COMMANDS, wakes


async def woken(client, actor_id):
    """Wake the actor, and wait until its arrows are stored, too: sometimes in two steps."""
    assert (await client.get(f"/gateway/{actor_id}")).status_code == 200
    await (await get_hub()).recorder.stored()


def nothing_under_way():
    """Say whether the worker has acknowledged all it has taken."""
    return get_redis().hlen(f"{PREFIX}unacked") == 0


async def test_between_processes_a_request_is_two_messages_and_under_load_they_share_writes(
    counted, tasks, other_web, client, namespace
):
    async with connected(other_web):
        actor_id = await running_actor(namespace)

        async def ask():
            for _ in range(EACH):
                assert (await client.get(f"/gateway/{actor_id}")).status_code == 200

        await ask()
        tasks.pause()
        counted.take()
        reads = reads_of_redis()
        await asyncio.gather(*(ask() for _ in range(ABREAST)))
        reads = reads_of_redis() - reads
        costs = counted.take()
    assert costs.commands["PUBLISH"] == 2 * ABREAST * EACH
    assert reads < 0.97 * costs.commands["PUBLISH"], (reads, costs)  # one after the other: two for each request


def reads_of_redis():
    """Return how often Redis has read from a connection; what was written together it reads at once."""
    return get_redis().info("stats")["total_reads_processed"]
