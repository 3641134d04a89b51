"""An engine that asks for tokens: runners of both kinds, clients in every way, from making a token to its end."""

import contextlib
import json
from urllib.parse import urlencode

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.api import Api, wait_until
from tests.support.endpoint import node_runner, sdk_runner
from tests.support.engines import ADMIN_TOKEN
from tests.support.stories import GUARDED, engines

pytestmark = [pytest.mark.e2e, engines(*GUARDED)]

BOTH = pytest.mark.parametrize("endpoint", ["node-2.2.1", "sdk"], indirect=True)
SECONDS = 30
NOBODY = (403, "api.forbidden")


def make_token(cluster, *scopes):
    """Make a token as an operator does; return its id and the token."""
    chosen = [part for scope in scopes for part in ("--scope", scope)]
    told = json.loads(cluster.manage("tokens", "create", "story", *chosen, "--json"))
    return told["token_id"], told["secret"]


def ways(actor_id, key, token):
    """Every way to call an actor by HTTP: the path, and headers."""
    header = {"x-rivet-token": token}
    query = {"rvt-namespace": "default", "rvt-method": "get", "rvt-key": key, "rvt-token": token}
    return [
        (f"/gateway/{actor_id}@{token}/echo?a=1", {}),
        (f"/gateway/{actor_id}/echo?a=1", header),
        (f"/gateway/counter/echo?{urlencode(query)}&a=1", {}),
        ("/request/echo?a=1", header | {"x-rivet-target": "actor", "x-rivet-actor": actor_id}),
    ]


def handshakes(actor_id, token):
    """Every way to open a WebSocket to an actor that HTTP does not have: the path, and subprotocols."""
    offer = f"rivet_token.{token}"
    return [
        (f"/gateway/{actor_id}@{token}/chat", ["rivet"]),
        (f"/gateway/{actor_id}/chat", ["rivet", offer]),
        ("/chat", ["rivet", "rivet_target.actor", f"rivet_actor.{actor_id}", offer]),
    ]


def opened(url, path, offers):
    address = f"{url.replace('http', 'ws', 1)}{path}"
    return connect(address, subprotocols=offers, compression=None, proxy=None, ping_interval=None)


def end_of(client):
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(SECONDS)
    return client.close_code, (client.close_reason or "").partition("#")[0]


@BOTH
def test_a_runner_the_engine_starts_comes_in_by_a_ticket_and_never_sees_the_admins_token(cluster, endpoint, pool):
    actor_id = put_to_sleep(cluster, endpoint, pool)
    answer = httpx.get(f"{cluster.urls[1]}/gateway/{actor_id}@{ADMIN_TOKEN}/echo?a=1", timeout=SECONDS)
    assert (answer.status_code, answer.json()["path"].partition("?")[2]) == (200, "a=1")
    assert ADMIN_TOKEN not in answer.text
    assert ADMIN_TOKEN not in endpoint.output()


def put_to_sleep(cluster, endpoint, pool):
    """Create an actor, let it run and fall asleep; return its id."""
    actor_id = cluster.api.create_actor(pool)
    cluster.api.wait_running(actor_id)
    assert cluster.api.call(f"{actor_id}@{ADMIN_TOKEN}", "/sleep").status_code == 200
    endpoint.wait("actor_stop", actorId=actor_id)
    cluster.api.wait_asleep(actor_id)
    return actor_id


@pytest.mark.parametrize("kind", [node_runner, sdk_runner], ids=["npm", "sdk"])
def test_clients_get_in_in_every_way_until_their_token_is_revoked(cluster, request, tmp_path, kind):
    pool = f"guarded-{request.node.callspec.id}"
    _, runners_token = make_token(cluster, "runner")
    token_id, token = make_token(cluster, "client")
    with kind(tmp_path, cluster.urls[0], pool, 10, token=runners_token) as runner, Api(cluster.urls[0]) as nobody:
        runner.wait("connected")
        body = {"name": "counter", "key": pool, "runner_name_selector": pool, "crash_policy": "sleep"}
        assert _refusal(nobody.send("POST", "/actors", json=body)) == NOBODY
        with Api(cluster.urls[0], token=token) as client:
            actor_id = client.send("PUT", "/actors", json=body).json()["actor"]["actor_id"]
            assert _refusal(client.send("GET", "/runner-configs")) == NOBODY
        for url in cluster.urls:
            for path, headers in ways(actor_id, pool, token):
                answer = httpx.get(url + path, headers=headers, timeout=SECONDS)
                assert answer.json()["actorId"] == actor_id, path
                assert token not in answer.text
            for path, headers in ways(actor_id, pool, runners_token):
                assert _refusal(httpx.get(url + path, headers=headers, timeout=SECONDS)) == NOBODY
            for path, offers in handshakes(actor_id, token):
                with opened(url, path, offers) as socket:
                    assert socket.subprotocol == "rivet"
                    socket.send("hello")
                    assert socket.recv(SECONDS) == "hello"
            for path, offers in handshakes(actor_id, runners_token):
                with opened(url, path, offers) as socket:
                    assert end_of(socket) == (1011, "api.forbidden")
        with opened(cluster.urls[1], f"/gateway/{actor_id}@{token}/chat", ["rivet"]) as socket:
            socket.send("hello")
            assert socket.recv(SECONDS) == "hello"
            cluster.manage("tokens", "revoke", token_id)
            assert end_of(socket) == (1011, "api.forbidden")
        for url in cluster.urls:
            wait_until(lambda url=url: _is_refused(url, actor_id, token), lambda url=url: f"{url} knows it")
        pictures = cluster.manage("timeline", actor_id, "--mermaid") + cluster.manage(
            "explain", actor_id, "--json"
        )
    for secret in (token, runners_token, ADMIN_TOKEN, "a=1"):
        assert secret not in pictures
    for secret in (token, runners_token, ADMIN_TOKEN):
        assert secret not in cluster.logs({})


def test_a_runner_whose_token_is_revoked_is_sent_away(cluster, tmp_path):
    token_id, token = make_token(cluster, "runner")
    with node_runner(tmp_path, cluster.urls[0], "sent-away", 1, token=token) as runner:
        runner.wait("connected")
        cluster.manage("tokens", "revoke", token_id)
        runner.wait("disconnected")


def _is_refused(url, actor_id, token):
    return _refusal(httpx.get(f"{url}/gateway/{actor_id}@{token}/echo", timeout=SECONDS)) == NOBODY


def _refusal(answer):
    told = answer.json()
    return answer.status_code, f"{told.get('group')}.{told.get('code')}"
