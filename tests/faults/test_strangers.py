"""Runners and clients with a token that is not theirs to use come in nowhere, and others do not notice."""

import asyncio
import json
import secrets
from contextlib import suppress

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from orchestrator.access import SECRET_PREFIX
from orchestrator.tokens import SECRET_LENGTH
from runners.protocol.codec import encode_to_server
from runners.protocol.messages import ToServerInit
from tests.support.endpoint import sdk_runner
from tests.support.engines import ADMIN_TOKEN
from tests.support.scripted_runner import dial, end_of, socket_url
from tests.support.stories import GUARDED, engines

pytestmark = [pytest.mark.e2e, pytest.mark.faults, engines(*GUARDED)]

KNOCKS = 15
"""How often each of them tries, at each door of each web process."""
SECONDS = 30
POOL = "besieged"
INIT = encode_to_server(ToServerInit(POOL, 1, 10, {}, None), 7)


def make_token(cluster, namespace, scope):
    """Return a new token's id, and the token."""
    told = json.loads(
        cluster.manage("tokens", "create", "a stranger's", "--namespace", namespace, "--scope", scope, "--json")
    )
    return told["token_id"], told["secret"]


@pytest.fixture
def strangers(cluster):
    """Tokens by what is wrong with them, for the runners' door and for the actors'."""
    if "elsewhere" not in cluster.manage("namespaces", "list"):
        cluster.api.create_namespace("elsewhere")
    revoked_id, revoked = make_token(cluster, "default", "runner")
    cluster.manage("tokens", "revoke", revoked_id)
    return {
        "none": None,
        "wrong": "wrong",
        "like a real one": (SECRET_PREFIX + secrets.token_urlsafe(SECRET_LENGTH))[:SECRET_LENGTH],
        "like a ticket": "ticket.e30.e30",
        "revoked": revoked,
        "of another namespace": make_token(cluster, "elsewhere", "runner")[1],
    }


async def test_strangers_who_knock_without_end_come_in_nowhere_and_others_are_served(cluster, strangers, tmp_path):
    own = make_token(cluster, "default", "runner")[1]
    with sdk_runner(tmp_path, cluster.urls[0], POOL, 10, token=own) as runner:
        runner.wait("connected")
        actor_id = cluster.api.create_actor(POOL)
        cluster.api.wait_running(actor_id)
        [before] = cluster.api.runners(POOL)
        mark = cluster.marks()
        over = asyncio.Event()
        async with httpx.AsyncClient(timeout=SECONDS) as client, asyncio.TaskGroup() as group:
            served = group.create_task(call_until(over, client, cluster.urls, actor_id))
            knocks = {
                (url, name): group.create_task(knock(client, url, actor_id, before["key"], token))
                for url in cluster.urls
                for name, token in strangers.items()
            }
            await asyncio.wait(knocks.values())
            over.set()
        assert set(served.result()) == {(200, 0)}
        for (url, name), told in knocks.items():
            at_runners = "guard.missing_header" if name == "none" else "api.forbidden"
            assert set(told.result()) == {(1011, at_runners), (403, "api.forbidden")}, (url, name)
        [after] = cluster.api.runners(POOL)
        assert after["runner_id"] == before["runner_id"]
        assert runner.events("disconnected") == []
    logs = cluster.logs(mark)
    assert not [token for token in [*strangers.values(), own] if token and len(token) > 10 and token in logs]


async def knock(client, url, actor_id, key, token):
    """Ask to be let in, as the runner that is there and as a client of its actor; return what is heard."""
    heard = []
    offers = ["rivet"] if token is None else ["rivet", f"rivet_token.{token}"]
    shown = {} if token is None else {"x-rivet-token": token}
    for _ in range(KNOCKS):
        async with dial(socket_url(url, key=key), offers) as socket:
            with suppress(ConnectionClosed):  # before it could say so
                await socket.send(INIT)
            heard.append(await end_of(socket))
        answer = await client.get(f"{url}/gateway/{actor_id}/", headers=shown)
        told = answer.json()
        heard.append((answer.status_code, f"{told['group']}.{told['code']}"))
    return heard


async def call_until(over, client, urls, actor_id):
    """Call the actor as one who may; return status and generation of each answer."""
    answers = []
    while not over.is_set():
        for url in urls:
            answer = await client.get(f"{url}/gateway/{actor_id}/", headers={"x-rivet-token": ADMIN_TOKEN})
            answers.append((answer.status_code, answer.json()["generation"]))
    return answers
