"""`torpor-runner` and the clients of the SDK, with the engine of its test kit."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from runners.sdk.client import AsyncClient, Client, EngineError
from runners.sdk.testing import RunningEngine, running_engine
from tests.support.api import wait_until
from tests.support.child import REPOSITORY, Child

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("sdk")]

ACTORS = """
from runners.sdk import Response

async def counter(ctx, request):
    return Response.text(f"{ctx.key} {ctx.generation}")

actors = {"counter": counter}
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as running:
        yield running


@contextmanager
def hosted(engine: RunningEngine, directory: Path, *arguments: str) -> Iterator[Child]:
    """Run `python -m runners.sdk` with the files of that directory, and wait until the engine knows it."""
    environment = {"TORPOR_ENDPOINT": engine.url, "PYTHONPATH": f"{directory}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "runners.sdk", *arguments]
    runner = Child("runner", command, directory / "runner.log", environment)
    runner.start()
    try:
        wait_until(lambda: "connected" in runner.output(), lambda: f"the runner connects:\n{runner.output()}")
        yield runner
    finally:
        runner.stop()


def test_a_handle_follows_its_name_to_the_next_actor(engine: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(ACTORS)
    with hosted(engine, tmp_path, "plain:actors"), Client(engine.url) as torpor:
        dave = torpor.get_or_create("counter", key="dave")
        assert dave.fetch("/?x=1").text == "dave 0"
        first = dave.resolve()
        torpor.actor(first).destroy()
        assert dave.fetch().text == "dave 0"
        assert dave.resolve() != first
        with pytest.raises(EngineError) as raised:
            torpor.actor(first).fetch()
        assert raised.value.code == "actor.not_found"
        with pytest.raises(EngineError, match="nobody"):
            torpor.get("counter", key="nobody").fetch()


async def test_the_client_for_event_loops_says_the_same(engine: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(ACTORS)
    with hosted(engine, tmp_path, "plain:actors"):
        async with AsyncClient(engine.url) as torpor:
            erin = torpor.get_or_create("counter", key="erin")
            assert (await erin.fetch()).text == "erin 0"
            async with erin.stream() as answer:
                assert await answer.aread() == b"erin 0"
            with pytest.raises(EngineError) as raised:
                await torpor.create("counter", key="erin")
            assert raised.value.code == "actor.duplicate_key"
            await erin.destroy()
            with pytest.raises(EngineError, match="erin"):
                await torpor.get("counter", key="erin").fetch()
