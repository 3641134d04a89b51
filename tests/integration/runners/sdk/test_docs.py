"""Every file shown in docs/sdk.md does what the page says; tests/e2e/test_sdk.py runs the rest of its blocks."""

import asyncio
import importlib
import os
import subprocess
import sys
from datetime import timedelta

import httpx
import pytest

from runners.sdk import Registry
from runners.sdk.testing import LocalEngine
from tests.support.child import REPOSITORY
from tests.support.management import NOON, make_actor
from tests.support.pages import read_page

PAGE = read_page("docs/sdk.md")
SECOND = timedelta(seconds=1)
TESTED = ["counter.py", "test_counter.py", "report.py", "echo.py", "alarm_clock.py", "greeting.py", "orders.py"]


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Import a file of the page."""
    PAGE.write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names = [name.removesuffix(".py") for name in PAGE.files]

    def forget():
        for name in names:
            sys.modules.pop(name, None)

    forget()
    yield importlib.import_module
    forget()


def test_every_file_of_the_page_has_a_test_here():
    beside = ["program.py", "endpoint.py", "project_asgi.py", "test_with_engine.py"]
    assert sorted([*TESTED, *beside]) == sorted(PAGE.files)


def test_the_tutorials_test_passes(tmp_path):
    PAGE.write(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:django", "test_counter.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


async def test_a_report_is_streamed_and_an_upload_counted(load):
    async with LocalEngine({"report": load("report").Report}) as engine:
        actor = engine.actor("report")
        assert (await actor.fetch()).text.splitlines()[-1] == "999,998001"
        answer = await actor.fetch(method="PUT", body=b"12345")
        assert (answer.json(), answer.headers.get_list("set-cookie")) == ({"bytes": 5}, ["a=1", "b=2"])


async def test_an_echo_counts_on_after_a_sleep(load):
    async with LocalEngine({"echo": load("echo").Echo}) as engine:
        actor = engine.actor("echo")
        socket = await actor.websocket()
        await socket.send("a")
        assert await socket.recv() == "1: a"
        await actor.sleep()
        await socket.send("b")
        assert await socket.recv() == "2: b"


async def test_an_alarm_clock_rings_in_the_morning(load):
    async with LocalEngine({"clock": load("alarm_clock").AlarmClock}) as engine:
        clock = engine.actor("clock")
        await clock.fetch(method="POST")
        await clock.fetch(method="POST")
        await clock.sleep()
        await engine.advance(timedelta(hours=8))
        assert (await clock.fetch()).json() == {"rung": 1}


async def test_an_app_is_an_actor(load):
    async with LocalEngine(load("greeting").actors) as engine:
        assert (await engine.actor("site", key="home").fetch()).text == "This is site home"


@pytest.mark.django_db(transaction=True)
async def test_an_actor_of_a_django_project_uses_the_orm(load, namespace):
    from orchestrator.db import run_db

    async with LocalEngine({"orders": load("orders").Orders}) as engine:
        actor = engine.actor("orders")
        columns = {"status": "running", "runner_id": "local-runner", "generation": 0, "due_at": NOON}
        await run_db(make_actor, namespace, id=actor.id, connectable_at=NOON, started_at=NOON, **columns)
        assert (await actor.fetch(method="POST", body=b"tea")).json() == ["tea"]


async def test_the_endpoint_tells_of_its_actors(load):
    transport = httpx.ASGITransport(load("endpoint").app)
    async with httpx.AsyncClient(transport=transport, base_url="http://endpoint") as client:
        assert (await client.get("/metadata")).json()["actorNames"] == {"counter": {"metadata": {}}}


@pytest.mark.django_db(transaction=True)
async def test_the_endpoint_is_served_beside_django(load):
    transport = httpx.ASGITransport(load("project_asgi").application)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/torpor/health")).json()["status"] == "ok"
        assert "text/html" in (await client.get("/admin/login/")).headers["content-type"]


async def test_the_program_hosts_the_counter(load, engine, monkeypatch):
    monkeypatch.setenv("TORPOR_ENDPOINT", engine.endpoint)
    program = load("program")
    assert Registry(program.actors).names == ("counter",)
    running = asyncio.create_task(program.main())
    connection = await engine.connection()
    await connection.close(1000, "ws.eviction")
    await running
