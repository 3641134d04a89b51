import asyncio
import os
import signal
import sys

import pytest

from runners.protocol.messages import ToServerAckCommands, ToServerInit, ToServerStopping
from tests.support.child import REPOSITORY
from tests.support.scripted_engine import start, stop

ACTORS = """
from runners.sdk import Actor, Response

class Hello(Actor):
    async def fetch(self, ctx, request):
        return Response.text("hello")

actors = {"hello": Hello}
"""


@pytest.fixture
async def process(engine, tmp_path):
    (tmp_path / "my_actors.py").write_text(ACTORS)
    arguments = ["-m", "runners.sdk", "my_actors:actors", "--endpoint", engine.endpoint, "--slots", "7"]
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TORPOR_TOKEN": "s3cret"},
    )
    yield running
    if running.returncode is None:
        running.kill()
    await running.wait()


async def test_a_process_hosts_the_actors_it_is_told_and_drains_at_sigterm(engine, process):
    async with asyncio.timeout(30):  # a process that starts on a busy machine takes its time
        connection = await engine.connections.get()
    init = await connection.take(ToServerInit)
    assert (init.name, init.total_slots, dict(init.prepopulate_actor_names)) == ("hello", 7, {"hello": "{}"})
    assert "rivet_token.s3cret" in connection.offers
    await connection.greet()
    await connection.command(start(name="hello"))
    await connection.take(ToServerAckCommands)
    assert (await connection.fetch()).body == b"hello"
    process.send_signal(signal.SIGTERM)
    await connection.take(ToServerStopping)
    await connection.command(stop())
    assert (await connection.has_closed())[1] == "pegboard.runner_shutdown"
    assert await process.wait() == 0
