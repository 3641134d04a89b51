"""Clients that mean harm cost little, are refused clearly, and others do not notice."""

import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import chain, repeat

import httpx
import pytest
from websockets.sync.client import connect

from orchestrator.server.limits import HEAD_SECONDS
from tests.support import abuse, valkey
from tests.support.api import wait_until
from tests.support.child import Child
from tests.support.cluster import Cluster
from tests.support.endpoint import sdk_runner
from tests.support.processes import free_port

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.xdist_group("abuse"),
    pytest.mark.timeout(400),
]

MIB = 1024 * 1024
SERVED_SECONDS = 5.0  # for a request of somebody else, on a busy machine
SPARE_BYTES = 96 * MIB  # what a process may grow by while it is abused
CONNECTIONS = 200
INIT_SOON = {"TORPOR_RUNNER_INIT_TIMEOUT_MS": "1500"}  # a runner that does not introduce itself is not waited for
BOMB_BYTES = 2 * SPARE_BYTES
SERVERS = ("daphne", "uvicorn")


class Web:
    """A web process under attack."""

    def __init__(self, url: str, child: Child, actor_id: str) -> None:
        self.url = url
        self.where = abuse.address(url)
        self.child = child
        self.actor_id = actor_id

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))

    def assert_serves(self) -> None:
        """Assert that others are served, by actors and by the API."""
        for path in (f"/gateway/{self.actor_id}/", "/actors?namespace=default&name=counter&limit=1"):
            began = time.monotonic()
            answer = httpx.get(self.url + path, timeout=SERVED_SECONDS)
            assert answer.status_code == 200, answer.text
            assert time.monotonic() - began < SERVED_SECONDS

    def settles(self, descriptors: int) -> None:
        """Wait until no more files are open than before, give or take a few of others."""
        wait_until(
            lambda: self.descriptors <= descriptors + 10, lambda: f"{self.descriptors} files, {descriptors} before"
        )


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Cluster]:
    """An engine on Daphne, and a runner."""
    directory = tmp_path_factory.mktemp("abused")
    database_url = f"sqlite:///{directory}/torpor.sqlite3"
    with (
        valkey.running() as redis_url,
        Cluster(directory, database_url, redis_url, "daphne", webs=1, env=INIT_SOON) as cluster,
        sdk_runner(directory, cluster.urls[0], "sdk", slots=20) as runner,
    ):
        runner.wait("connected")
        yield cluster


@pytest.fixture(scope="module")
def servers(engine, tmp_path_factory) -> Iterator[dict[str, tuple[str, Child]]]:
    """Its web process, and another one on Uvicorn."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    where = ["--host", "127.0.0.1", "--port", str(port), "--server", "uvicorn"]
    log = tmp_path_factory.mktemp("uvicorn") / "web.log"
    child = Child("uvicorn", [sys.executable, "manage.py", "serve", *where], log, engine.worker.env)
    child.start()
    try:
        wait_until(partial(is_healthy, url), child.output, 60)
        yield {"daphne": (engine.urls[0], engine.webs[0]), "uvicorn": (url, child)}
    finally:
        child.stop()


def is_healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def webs(engine, servers) -> dict[str, Web]:
    actor_id = engine.api.create_actor("sdk")
    return {name: Web(url, child, actor_id) for name, (url, child) in servers.items()}


@pytest.fixture(params=SERVERS)
def web(request, webs) -> Web:
    webs[request.param].assert_serves()
    return webs[request.param]


def test_heads_that_never_begin_or_end_are_given_up(webs):
    """On both servers at once, as it takes as long as a head may."""
    before = {web: web.descriptors for web in webs.values()}
    memory = {web: web.child.rss_bytes() for web in webs.values()}
    silent = [one for web in webs.values() for one in abuse.open_connections(web.where, CONNECTIONS)]
    begun = b"GET /health HTTP/1.1\r\nhost: engine\r\n"
    slow = [one for web in webs.values() for one in abuse.open_connections(web.where, CONNECTIONS, begun)]
    try:
        with abuse.dripping(slow, b"x-more: y\r\n", 1.0):
            for web in webs.values():
                web.assert_serves()
            left = lambda: abuse.still_open(silent + slow)  # noqa: E731
            wait_until(lambda: left() == 0, lambda: f"{left()} are given up", 2.5 * HEAD_SECONDS)
            for web in webs.values():
                web.assert_serves()
                assert web.child.peak_rss_bytes() - memory[web] < SPARE_BYTES
    finally:
        abuse.close_connections(silent + slow)
    for web in webs.values():
        web.settles(before[web])


def test_sockets_that_are_opened_and_left_alone_cost_little_and_go_with_their_clients(web):
    before, memory = web.descriptors, web.child.rss_bytes()
    runner = abuse.UPGRADE.format(path="/runners/connect?protocol_version=7&namespace=default&runner_key=x")
    client = abuse.UPGRADE.format(path=f"/gateway/{web.actor_id}/")
    half = CONNECTIONS // 2
    opened = abuse.open_connections(web.where, half, runner.encode())
    wait_until(lambda: abuse.still_open(opened) == 0, lambda: "runners that say no init are sent away", 30)
    opened += abuse.open_connections(web.where, half, client.encode())
    try:
        web.assert_serves()
        assert web.child.peak_rss_bytes() - memory < SPARE_BYTES
    finally:
        abuse.close_connections(opened)
    web.settles(before)


def test_connections_as_fast_as_they_come_are_taken_and_others_served(web, record_property):
    before = web.descriptors
    done = 0
    for _ in range(3):
        done += abuse.connect_for(web.where, 1.0)
        web.assert_serves()
    record_property("connections", done)
    print("connections in 3 s:", done)
    web.settles(before)


@pytest.mark.parametrize("path", ["/health", "/gateway/{actor}/"])
@pytest.mark.parametrize(
    "head",
    [b"x: " + b"y" * 3 * MIB, b"".join(b"x-%d: y\r\n" % n for n in range(50_000)), b"x" * 3 * MIB],
    ids=["one long header", "many headers", "a name without end"],
)
def test_heads_that_are_too_large_are_refused_at_once(web, path, head):
    memory = web.child.rss_bytes()
    request = b"GET " + path.format(actor=web.actor_id).encode() + b" HTTP/1.1\r\nhost: engine\r\n" + head
    answer = abuse.answer_to(web.where, request + b"\r\n\r\n")
    assert answer == b"" or answer.split()[1] in (b"400", b"431"), answer[:200]
    assert web.child.peak_rss_bytes() - memory < SPARE_BYTES
    web.assert_serves()


def test_a_body_that_grows_when_it_is_unpacked_is_not_unpacked(web):
    memory = web.child.rss_bytes()
    bomb = gzip.compress(b"\0" * BOMB_BYTES, 1)
    assert len(bomb) < 5 * MIB
    headers = {"content-encoding": "gzip", "content-type": "application/json"}
    api = httpx.post(f"{web.url}/actors?namespace=default", content=bomb, headers=headers, timeout=30)
    assert (api.status_code, api.json()["code"]) == (400, "bad_request")
    actor = httpx.post(f"{web.url}/gateway/{web.actor_id}/length", content=bomb, headers=headers, timeout=30)
    assert actor.json()["bytes"] == len(bomb)
    assert web.child.peak_rss_bytes() - memory < SPARE_BYTES
    web.assert_serves()


def test_no_compression_of_websockets_is_agreed_to(web):
    with connect(f"ws://{web.where[0]}:{web.where[1]}/gateway/{web.actor_id}/", proxy=None) as client:
        assert client.protocol.extensions == []


def deflated(size: int) -> bytes:
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return packer.compress(b"\0" * size) + packer.flush(zlib.Z_SYNC_FLUSH)


FIN, PACKED, BINARY = 0x80, 0x40, 0x02
FRAMES = {
    "packed though nobody agreed to it": (
        1002,
        lambda: [abuse.frame(FIN | PACKED | BINARY, deflated(BOMB_BYTES))],
    ),
    "announced as an exbibyte": (1009, lambda: [abuse.frame(FIN | BINARY, b"x", announced=2**60)]),
    "in pieces without end": (
        1009,
        lambda: chain([abuse.frame(BINARY, b"x")], repeat(abuse.frame(0, bytes(MIB)), BOMB_BYTES // MIB)),
    ),
    "in a hundred thousand pieces of nothing": (
        1009,
        lambda: chain([abuse.frame(BINARY, b"")], repeat(abuse.frame(0, b"") * 1000, 100)),
    ),
}


@pytest.mark.parametrize(
    "path",
    ["/gateway/{actor}/", "/runners/connect?protocol_version=7&namespace=default&runner_key=x"],
    ids=["actor", "runner"],
)
@pytest.mark.parametrize(("code", "frames"), FRAMES.values(), ids=FRAMES)
def test_a_message_that_is_too_much_ends_its_socket(web, path, code, frames):
    memory = web.child.rss_bytes()
    assert abuse.close_code_after(web.where, path.format(actor=web.actor_id), frames()) == code
    assert web.child.peak_rss_bytes() - memory < SPARE_BYTES
    web.assert_serves()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[" * 200_000, 400),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
        (b'{"name": "' + b"x" * 19 * MIB + b'"}', 400),
        (json.dumps({f"k{n}": n for n in range(300_000)}).encode(), 400),
        (b"1" * 5 * MIB, 400),
        (b" " * 21 * MIB, 413),
    ],
    ids=["deep lists", "deep objects", "a long name", "many members", "a long number", "too long"],
)
def test_json_that_is_too_much_is_refused_in_a_moment(web, body, status):
    began = time.monotonic()
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{web.url}/actors?namespace=default", content=body, headers=headers, timeout=30)
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 10_000
    assert time.monotonic() - began < 2 * SERVED_SECONDS
    web.assert_serves()
