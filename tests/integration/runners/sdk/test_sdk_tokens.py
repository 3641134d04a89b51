"""Runners and clients in Python with an engine that asks for tokens."""

import asyncio
import json

import pytest

from orchestrator.access import Scope
from orchestrator.db import run_db
from orchestrator.tokens import create_token
from runners.sdk import Actor, Response, Runner
from runners.sdk.client import AsyncClient, Client, EngineError

pytestmark = pytest.mark.django_db(transaction=True)


class Teller(Actor):
    """Tells which headers it has seen."""

    async def fetch(self, ctx, request):
        return Response.json(dict(request.headers))

    async def websocket(self, ctx, socket):
        await socket.send(json.dumps(dict(socket.request.headers)))


@pytest.fixture
async def token_of(env, namespace):
    """Return a token of a scope."""
    env(admin_token="the-admins")

    async def make(scope):
        return (await run_db(create_token, namespace=namespace, label="", scopes=[scope]))[1]

    return make


@pytest.fixture
async def runner(worker, engine_url, token_of):
    token = await token_of(Scope.RUNNER)
    async with Runner(pool="teller", actors={"teller": Teller}, endpoint=engine_url, token=token) as runner:
        yield runner


async def test_a_client_shows_its_token_to_the_engine_and_not_to_actors(runner, engine_url, token_of):
    token = await token_of(Scope.CLIENT)
    async with AsyncClient(engine_url, token=token) as torpor:
        teller = torpor.get_or_create("teller", key="anna")
        answer = await teller.fetch("/", headers={"x-own": "1", "authorization": "Basic own"})
        assert_told(answer.text, token)
        async with teller.stream("/", headers=[("x-own", "1"), ("authorization", "Basic own")]) as answer:
            assert_told((await answer.aread()).decode(), token)
        own = {"x-own": "1", "authorization": "Basic own"}
        async with teller.websocket("/", additional_headers=own, proxy=None) as socket:
            assert_told(await socket.recv(), token)
        await teller.destroy()


async def test_a_client_that_blocks_does_the_same(runner, engine_url, token_of, monkeypatch):
    token = await token_of(Scope.CLIENT)
    monkeypatch.setenv("TORPOR_TOKEN", token)
    own = {"x-own": "1", "authorization": "Basic own"}

    def call():
        with Client(engine_url) as torpor:
            teller = torpor.get_or_create("teller", key="bert")
            assert_told(teller.fetch("/", headers=own).text, token)
            with teller.stream("/", headers=own) as answer:
                assert_told(answer.read().decode(), token)
            with teller.websocket("/", additional_headers=own, proxy=None) as socket:
                assert_told(socket.recv(), token)
            teller.destroy()

    await asyncio.to_thread(call)


@pytest.mark.parametrize("token", [None, "wrong"])
async def test_without_the_right_token_there_is_no_answer(runner, engine_url, token_of, token):
    async with AsyncClient(engine_url, token=await token_of(Scope.CLIENT)) as torpor:
        actor_id = await torpor.get_or_create("teller", key="carl").resolve()
    async with AsyncClient(engine_url, token=token) as torpor:
        for call in (torpor.actor(actor_id).fetch, torpor.actor(actor_id).destroy):
            with pytest.raises(EngineError) as raised:
                await call()
            assert raised.value.status in (401, 403)


def assert_told(headers, token):
    told = json.loads(headers)
    assert (told["x-own"], told["authorization"]) == ("1", "Basic own")
    assert token not in headers
