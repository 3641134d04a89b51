"""`/ready`: the stores, an echo through every queue, and the details for those with the token."""

import asyncio

import pytest
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer

from orchestrator.db import run_db
from orchestrator.redis import get_redis
from orchestrator.workflow import echo
from runners.serverless import background
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

TOKEN = {"authorization": "Bearer hunter2hunter2"}


def test_every_queue_must_be_served(api, monkeypatch):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0)
    echo.answer("torpor")
    answer = api.send("GET", "/ready")
    assert (answer.status, answer.json["status"]) == (503, "error")
    parts = {"database": "ok", "redis": "ok", "queue torpor": "ok", "queue serverless": "no echo"}
    assert answer.json["checks"] == parts
    echo.answer("serverless")
    answer = api.send("GET", "/ready")
    assert (answer.status, answer.json["status"], set(answer.json["checks"].values())) == (200, "ok", {"ok"})


def test_the_details_are_for_those_with_the_token(api, env):
    echo.answer("torpor")
    echo.answer("serverless")
    env(admin_token="hunter2hunter2")
    assert set(api.send("GET", "/ready").json) == {"status", "runtime", "version"}
    assert "checks" in api.send("GET", "/ready", headers=TOKEN).json


def test_a_channel_is_asked_by_a_message_on_it(redis_url):
    echo.ask("serverless")
    echo.ask("serverless")
    [waiting] = get_redis().keys("torpor-channels*serverless*")
    assert get_redis().zcard(waiting) == 1  # it was asked once
    assert async_to_sync(get_channel_layer().receive)("serverless")["type"] == "echo"


async def test_a_connector_answers_when_it_is_asked(namespace):
    messages: asyncio.Queue[dict] = asyncio.Queue()
    messages.put_nowait({"type": "echo"})
    scope = {"type": "channel", "channel": "serverless"}
    connector = asyncio.create_task(background(scope, messages.get, None))
    assert await eventually(lambda: run_db(echo.age_seconds, "serverless")) < echo.KEPT_MS
    connector.cancel()
    await asyncio.gather(connector, return_exceptions=True)
