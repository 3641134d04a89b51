"""Clients' WebSockets to actors on the npm client and on our own SDK, awake, asleep and in between."""

import contextlib

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.endpoint import Application, node_runner
from tests.support.stories import engines, sleeping_actor

pytestmark = pytest.mark.e2e

APPLICATIONS = pytest.mark.parametrize("endpoint", ["node-2.2.1", "sdk"], indirect=True)
MIB = 1024 * 1024
SECONDS = 30


def open_socket(url: str, actor_id: str, path: str = "/", **options: object) -> ClientConnection:
    address = f"{url.replace('http', 'ws', 1)}/gateway/{actor_id}{path}"
    return connect(address, compression=None, max_size=None, proxy=None, ping_interval=None, **options)  # type: ignore[arg-type]


def echoed(client: ClientConnection, message: str | bytes) -> bool:
    client.send(message)
    return client.recv(SECONDS) == message


def closed(client: ClientConnection) -> tuple[int | None, str | None]:
    with contextlib.suppress(ConnectionClosed):
        while True:
            client.recv(SECONDS)
    return client.close_code, client.close_reason


@engines("sqlite-daphne", "sqlite-uvicorn")
@APPLICATIONS
@pytest.mark.parametrize("web", [0, 1], ids=["same process", "two processes"])
def test_a_socket_wakes_its_actor_echoes_and_ends_with_it(cluster, endpoint, pool, web):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    with open_socket(cluster.urls[web], actor_id, "/chat?x=%20", subprotocols=["rivet"]) as client:
        assert client.subprotocol == "rivet"
        for message in ("text", "", "ä€𝄞", b"\x00\xff", b"", "x" * 70_000, b"y" * 16 * MIB):
            assert echoed(client, message)
        for number in range(200):
            client.send(str(number))
        assert [client.recv(SECONDS) for _ in range(200)] == [str(number) for number in range(200)]
        assert endpoint.wait("socket", actorId=actor_id)["path"].startswith("/chat")
        assert cluster.api.call(actor_id, "/sleep").status_code == 200
        assert closed(client) == (1000, "actor.stopped")
    cluster.api.wait_asleep(actor_id)
    with open_socket(cluster.urls[web], actor_id) as client:
        assert echoed(client, "again")


@pytest.fixture
def runner(request, cluster, tmp_path):
    """A long-lived npm runner on the first web process; its pool has its name."""
    pool = f"sockets-{abs(hash(request.node.name)) % 10**9}"
    with node_runner(tmp_path, cluster.urls[0], pool, slots=50) as running:
        running.wait("connected")
        running.pool = pool
        yield running


@engines("sqlite-daphne", "postgresql-uvicorn")
@pytest.mark.parametrize("web", [0, 1], ids=["same process", "two processes"])
def test_a_socket_hibernates_with_its_actor_and_goes_on(cluster, runner, web):
    actor_id = cluster.api.create_actor(runner.pool)
    with open_socket(cluster.urls[web], actor_id, "/hibernate/room") as client:
        for life in range(3):
            for number in range(20):
                assert echoed(client, f"{life} {number}")
            put_to_sleep(cluster, runner, actor_id, life)
        client.close(4001, "good night")
    told = runner.wait("socket_closed", actorId=actor_id)
    assert (told["code"], told["reason"]) == (4001, "good night")
    restored = runner.events("socket", actorId=actor_id, restoring=True)
    assert len(restored) == 3
    put_to_sleep(cluster, runner, actor_id, life=3)
    assert cluster.api.call(actor_id).json()["generation"] == 4
    assert len(runner.events("socket", actorId=actor_id, restoring=True)) == 3
    assert len(runner.events("socket_closed", actorId=actor_id)) == 1


def put_to_sleep(cluster, runner: Application, actor_id: str, life: int) -> None:
    assert cluster.api.call(actor_id, "/sleep").status_code == 200
    runner.wait("actor_stop", actorId=actor_id, generation=life)
    cluster.api.wait_asleep(actor_id)


@engines("sqlite-daphne", "sqlite-uvicorn")
def test_a_gateway_that_restarts_sends_its_clients_away(cluster, runner):
    actor_id = cluster.api.create_actor(runner.pool)
    with (
        open_socket(cluster.urls[1], actor_id) as client,
        open_socket(cluster.urls[1], actor_id, "/hibernate") as sleeper,
    ):
        assert echoed(client, "hello")
        assert echoed(sleeper, "hello")
        cluster.webs[1].stop()
        for one in (client, sleeper):
            code, reason = closed(one)
            assert (code, (reason or "").partition("#")[0]) == (1012, "ws.going_away")
    cluster.webs[1].start()
    cluster.wait_healthy(1)
    with open_socket(cluster.urls[1], actor_id) as client:
        assert echoed(client, "hello again")
