"""Random and damaged frames at the runner's socket: nothing fails, and nobody else notices.

`FUZZ_FRAMES` and `FUZZ_SEED` ask for more, or for others, than every run of the tests tries.
"""

import asyncio
import contextlib
import itertools
import logging
import os
import resource
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from gateway.hub import get_hub
from orchestrator.db import run_db
from orchestrator.ids import new_id
from orchestrator.models import SetAsideSignal
from runners.protocol.codec import VERSIONS
from runners.protocol.messages import KvGetRequest, ToClientKvResponse, ToServerKvRequest
from tests.support.fuzz import Fuzzer
from tests.support.live import actor_row, running_actor
from tests.support.scripted_runner import ScriptedRunner

pytestmark = pytest.mark.django_db(transaction=True)

FRAMES = int(os.environ.get("FUZZ_FRAMES", "10000"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))
FRAMES_A_SOCKET = 500
FRAMES_AT_ONCE = 50
QUESTION = 1_000_000
ANSWER_SECONDS = 10.0


def memory_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
    return pages * resource.getpagesize()


async def attack(engine_url, fuzzer, version, count):
    """Send so many frames, over as many sockets as that takes, no faster than the engine reads them."""
    frames = fuzzer.frames(count)
    while batch := list(itertools.islice(frames, FRAMES_A_SOCKET)):
        runner = ScriptedRunner(engine_url, key=f"bad{version}", pool="bad", version=version, obeys=False)
        await runner.connect()
        with contextlib.suppress(ConnectionClosed):  # it may have said that it goes
            for number, frame in enumerate(batch):
                await runner.socket.send(frame)
                if number % FRAMES_AT_ONCE == 0:
                    await has_read(runner, number)
            await has_read(runner, len(batch))
        await runner.end()


async def has_read(runner, number):
    """Wait until the engine has read all that was sent: it answers a question that no fuzzer asks."""
    await runner.send(ToServerKvRequest("nobody", QUESTION + number, KvGetRequest(())))
    while not [
        m for m in runner.received if isinstance(m, ToClientKvResponse) and m.request_id == QUESTION + number
    ]:
        if runner.socket.close_code is not None:
            return
        await asyncio.sleep(0.001)
    runner.received.clear()


@pytest.mark.timeout(3_600 if FRAMES > 10_000 else 120)
async def test_whatever_a_runner_sends_nothing_fails_and_a_well_behaved_one_is_served(
    worker, host, namespace, engine_url, env, caplog
):
    env(runner_ping_interval_ms=200, runner_ping_timeout_ms=5_000)
    caplog.set_level(logging.WARNING)
    good = await host()
    victim = await running_actor(namespace)
    answers = 0

    async def ask_on_and_on():
        nonlocal answers
        async with httpx.AsyncClient(base_url=engine_url, trust_env=False, timeout=ANSWER_SECONDS) as client:
            while True:
                answer = await client.get(f"/gateway/{victim}/")
                assert (answer.status_code, answer.json()["generation"]) == (200, 0)
                answers += 1

    asking = asyncio.create_task(ask_on_and_on())
    gateways = [(await get_hub()).gateway_id]
    memory, rounds = [], max(1, FRAMES // 4_000)
    for number in range(rounds):
        actors = [victim, new_id()]
        attacks = [
            attack(
                engine_url,
                Fuzzer(SEED + number, version, actors, gateways),
                version,
                FRAMES // rounds // len(VERSIONS),
            )
            for version in VERSIONS
        ]
        await asyncio.gather(*attacks)
        memory.append(memory_bytes())
        assert not asking.done(), asking.exception()
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    print(f"{FRAMES} frames, seed {SEED}; {answers} answers meanwhile; memory {[m >> 20 for m in memory]} MiB")

    assert answers > 10
    assert good.socket.close_code is None
    row = await actor_row(victim)
    assert (row.status, row.generation, row.runner_id) == ("running", 0, good.runner_id)
    assert not await run_db(SetAsideSignal.objects.exists)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    half = len(memory) // 2
    assert not half or memory[-1] < 1.1 * memory[half]
