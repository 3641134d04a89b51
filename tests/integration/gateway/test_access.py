"""Tokens on the way to an actor: what they cost, how long they are good, and who gets to see them."""

import asyncio
import json
import logging

import httpx
import pytest

from actors.explain import explain
from actors.timeline import actor_timeline
from gateway import access
from orchestrator import tokens
from orchestrator.db import run_db
from orchestrator.models import AccessToken
from orchestrator.pictures import entry_json, mermaid, table
from tests.support.gateway import NOTHING, refusal
from tests.support.live import actor_row, running_actor
from tests.support.management import make_actor
from tests.support.scripted_runner import tell
from tests.support.scripted_sockets import client_of, refused, take_accepted, take_open
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

ADMIN_TOKEN = "the-admins"
RUNNER = {"offers": ["rivet", f"rivet_token.{ADMIN_TOKEN}"]}


@pytest.fixture
async def secret(env, namespace):
    """A client's token, which the engine asks for."""
    env(admin_token=ADMIN_TOKEN)
    _, secret = await run_db(tokens.create_token, namespace=namespace, label="", scopes=["client"])
    return secret


@pytest.fixture
def quick(monkeypatch):
    """Those who stay are asked again at once."""
    monkeypatch.setattr(access, "ROUND_SECONDS", 0.02)


def count_calls(monkeypatch, module, name):
    calls, function = [], getattr(module, name)

    def counted(*arguments):
        calls.append(arguments)
        return function(*arguments)

    monkeypatch.setattr(module, name, counted)
    return calls


async def revoke():
    await run_db(lambda: tokens.revoke_token(AccessToken.objects.get()))


async def test_of_many_requests_with_a_token_the_first_alone_asks_the_database(
    worker, host, client, namespace, secret, monkeypatch
):
    await host(**RUNNER)
    actor_id = await running_actor(namespace)
    looked_up = [count_calls(monkeypatch, tokens, "find_bearer"), count_calls(monkeypatch, access, "_look_up")]
    headers = {"x-rivet-token": secret}
    for _ in range(3):  # what is learnt before the process hears of changes is not kept
        assert (await client.get(f"/gateway/{actor_id}", headers=headers)).status_code == 200
    before = [len(calls) for calls in looked_up]
    for _ in range(30):
        assert (await client.get(f"/gateway/{actor_id}@{secret}/x")).status_code == 200
    assert [len(calls) for calls in looked_up] == before
    assert before[1] == 1


async def test_the_websocket_of_a_revoked_token_is_closed(
    worker, host, engine_url, namespace, secret, quick, held
):
    runner = await host(**RUNNER)
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, f"{actor_id}@{secret}") as client:
        socket = await take_accepted(runner)
        await client.send("hello")
        assert await socket.take_text() == "hello"
        await revoke()
        assert await refused(client) == (1011, "api.forbidden")
    await eventually(lambda: held() == NOTHING)


async def test_who_still_waits_for_an_actor_by_a_revoked_token_waits_no_longer(
    engine_url, namespace, secret, quick, redis_url
):
    actor = await run_db(make_actor, namespace)

    async def call():
        async with client_of(engine_url, f"{actor.pk}@{secret}") as client:
            return await refused(client)

    calling = asyncio.create_task(call())
    await eventually(lambda: len(access._guests) == 1)
    await revoke()
    assert await calling == (1011, "api.forbidden")


async def test_an_answer_that_is_streamed_ends_with_its_token(
    worker, host, client, namespace, secret, quick, held
):
    requests = asyncio.Queue()
    await host(**RUNNER, answer=requests.put)
    actor_id = await running_actor(namespace)
    asked = client.build_request("GET", f"/gateway/{actor_id}", headers={"x-rivet-token": secret})
    sending = asyncio.create_task(client.send(asked, stream=True))
    await (await requests.get()).begin(b"first")
    answer = await sending
    body = answer.aiter_raw()
    assert await anext(body) == b"first"
    await revoke()
    with pytest.raises(httpx.RemoteProtocolError):
        await anext(body)
    await eventually(lambda: held() == NOTHING)


async def test_where_no_token_is_asked_for_nobody_is_asked_again(worker, host, engine_url, namespace):
    runner = await host()
    actor_id = await running_actor(namespace)
    async with client_of(engine_url, actor_id):
        await take_accepted(runner)
        assert not access._guests


async def test_neither_a_token_nor_what_a_query_holds_is_told_to_anybody_else(
    worker, host, engine_url, client, namespace, secret, caplog
):
    caplog.set_level(logging.DEBUG)
    runner = await host(**RUNNER, answer=tell)
    actor = await run_db(make_actor, namespace, key="k")
    query = f"rvt-namespace=default&rvt-method=get&rvt-key=k&rvt-token={secret}&code=hush"
    addresses = [
        (f"/gateway/{actor.pk}@{secret}/path?code=hush", {}),
        (f"/gateway/{actor.pk}/path?code=hush", {"x-rivet-token": secret}),
        (f"/gateway/counter/path?{query}", {}),
    ]
    seen = []
    for address, headers in addresses:
        answer = await client.get(address, headers=headers)
        assert answer.json()["path"] == "/path?code=hush"  # what is the actor's business
        seen.append(answer.text)
    async with client_of(engine_url, f"{actor.pk}/path?code=hush", ["rivet", f"rivet_token.{secret}"]):
        _, opening = await take_open(runner)
        seen.append(str(opening))
    for headers in ({}, {"x-rivet-token": f"wrong-{secret}"}):
        assert refusal(await client.get(f"/gateway/{actor.pk}?code=hush", headers=headers))[0] == 403
    row = await actor_row(actor.pk)
    entries = await run_db(actor_timeline, actor.pk)
    assert "GET /path" in mermaid(entries)
    told = [json.dumps([entry_json(entry) for entry in entries]), mermaid(entries), str(table(entries))]
    told += [json.dumps(await run_db(explain, row)), caplog.text]
    for text in told:
        assert "hush" not in text
        assert secret not in text
    assert all(secret not in text for text in seen)
    assert ADMIN_TOKEN not in caplog.text
