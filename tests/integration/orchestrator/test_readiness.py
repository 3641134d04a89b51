"""`/ready`: the stores, an echo through every queue, and the details for those with the token."""

import pytest

from orchestrator.workflow import echo
from tests.support.start_endpoint import connector
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


async def test_a_connector_answers_for_its_channel(namespace):
    from orchestrator.db import run_db

    async with connector():
        await run_db(echo.ask, "serverless")
        assert await eventually(lambda: run_db(echo.age_seconds, "serverless")) is not None
