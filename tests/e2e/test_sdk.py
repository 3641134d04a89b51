"""The SDK with a real engine: its tutorial as a reader follows it, its clients, and the examples."""

import asyncio
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from runners.sdk.client import AsyncClient, Client, EngineError
from runners.sdk.testing import RunningEngine
from tests.support.api import wait_until
from tests.support.child import REPOSITORY, Child
from tests.support.pages import expected_output, read_page

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("sdk")]

PAGE = read_page("docs/sdk.md")
RUNNER = "python -m runners.sdk counter:actors"
ACTORS = """
from runners.sdk import Response

async def counter(ctx, request):
    return Response.text(f"{ctx.key} {ctx.generation}")

actors = {"counter": counter}
"""


@pytest.fixture
def engine(torpor_engine: RunningEngine) -> RunningEngine:
    return torpor_engine


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


def test_every_command_of_the_page_is_run_here_or_beside() -> None:
    beside = ["python -m pytest test_counter.py", "make up"]  # test_docs.py; the engine above
    assert sorted(PAGE.commands) == sorted([*beside, RUNNER])


def test_the_tutorial_works_as_it_stands(engine: RunningEngine, tmp_path: Path) -> None:
    PAGE.write(tmp_path)
    with hosted(engine, tmp_path, *RUNNER.split()[3:]):
        for script in PAGE.scripts:
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=tmp_path,
                env=os.environ | {"TORPOR_ENDPOINT": engine.url, "PYTHONPATH": str(REPOSITORY)},
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
            assert (done.stdout, done.stderr) == (expected_output(script), "")


async def test_an_integration_test_shares_an_engine(
    engine: RunningEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PAGE.write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    test = importlib.import_module("test_with_engine")
    try:
        await test.test_a_counter_counts_with_a_real_engine(engine)
    finally:
        for name in ("test_with_engine", "counter"):
            sys.modules.pop(name, None)


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


async def test_a_chat_room_sleeps_and_wakes_and_nobody_is_disconnected(
    engine: RunningEngine, tmp_path: Path
) -> None:
    (tmp_path / "quick_chat.py").write_text(
        "from datetime import timedelta\n"
        "from examples.chat.app import Chat, actors\n"
        "Chat.sleep_after = timedelta(seconds=0.2)\n"
    )
    with hosted(engine, tmp_path, "quick_chat:actors"):
        async with AsyncClient(engine.url) as torpor:
            room = torpor.get_or_create("chat", key="kitchen")
            async with room.websocket("/?name=anna") as anna, room.websocket("/?name=bert") as bert:
                assert [await anna.recv(), await anna.recv()] == ["anna has come", "bert has come"]
                assert [await bert.recv(), await bert.recv()] == ["anna has come", "bert has come"]
                await asleep(torpor.http, await room.resolve())
                await bert.send("still here?")
                async with asyncio.timeout(30):
                    assert await anna.recv() == "bert: still here?"
                    assert await bert.recv() == "bert: still here?"
                shown = (await room.fetch()).json()
                assert (sorted(shown["here"]), shown["generation"] > 0) == (["anna", "bert"], True)


async def test_a_reminder_wakes_when_it_is_time(engine: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "quick_reminder.py").write_text(
        "from datetime import timedelta\n"
        "from examples.reminder.app import Reminder, actors\n"
        "Reminder.sleep_after = timedelta(seconds=0.2)\n"
    )
    with hosted(engine, tmp_path, "quick_reminder:actors") as runner:
        async with AsyncClient(engine.url) as torpor:
            anna = torpor.get_or_create("reminder", key="anna")
            await anna.fetch(method="POST", json={"text": "tea", "seconds": 2})
            await asleep(torpor.http, await anna.resolve())
            starts = runner.output().count("starting an actor")
            wait_until(lambda: runner.output().count("starting an actor") > starts, lambda: runner.output())
            shown = (await anna.fetch()).json()
            assert [reminded["text"] for reminded in shown["reminded"]] == ["tea"]


async def asleep(engine: httpx.AsyncClient, actor_id: str) -> None:
    """Wait until the engine says that the actor sleeps."""
    async with asyncio.timeout(30):
        while True:
            answer = await engine.get("/actors", params={"namespace": "default", "actor_id": actor_id})
            [actor] = answer.json()["actors"]
            if actor["sleep_ts"] is not None and actor["connectable_ts"] is None:
                return
            await asyncio.sleep(0.05)
