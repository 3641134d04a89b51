"""What every kind of runner and the real engine must do together, one row each."""

import itertools
from dataclasses import dataclass

import pytest
from websockets.sync.client import connect

from tests.support import kinds
from tests.support.api import wait_until
from tests.support.cluster import Cluster
from tests.support.endpoint import Application
from tests.support.relay import Relay
from tests.support.stories import engines

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne")]

SECONDS = 30

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Hosting:
    """A runner of one kind, connected to the first web process by a cable, and the engine."""

    kind: str
    cluster: Cluster
    app: Application
    pool: str
    cable: Relay

    def actor(self) -> str:
        """Create an actor and see it run here."""
        actor_id = self.cluster.api.create_actor(self.pool)
        self.cluster.api.wait_running(actor_id)
        self.app.wait("actor_start", actorId=actor_id, generation=0)
        return actor_id

    def call(self, actor_id, path="/", method="GET", **options):
        """Call an actor, which must answer 200, and return what it tells."""
        answer = self.cluster.api.call(actor_id, path, method, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def socket(self, actor_id, path, **options):
        """Connect to an actor by WebSocket, through the process its runner is not at."""
        url = f"{self.cluster.urls[1].replace('http', 'ws', 1)}/gateway/{actor_id}{path}"
        return connect(url, compression=None, proxy=None, ping_interval=None, **options)

    def fall_asleep(self, actor_id, generation=0):
        self.call(actor_id, "/sleep")
        self.app.wait("actor_stop", actorId=actor_id, generation=generation)
        self.cluster.api.wait_asleep(actor_id)


def port_of(url):
    return int(url.rpartition(":")[2])


@pytest.fixture(scope="module", params=kinds.KINDS)
def shared(request, cluster, tmp_path_factory):
    """A runner for all rows but those it does not outlive."""
    yield from _hosting(request.param, cluster, tmp_path_factory.mktemp(request.param))


@pytest.fixture(params=kinds.KINDS)
def own(request, cluster, tmp_path):
    """A runner for one row."""
    yield from _hosting(request.param, cluster, tmp_path)


def _hosting(kind, cluster, directory):
    pool = f"{kind}-{next(_numbers)}"
    with Relay(port_of(cluster.urls[0])) as cable, kinds.start(kind, directory, cable.url, pool) as app:
        app.wait("connected")
        yield Hosting(kind, cluster, app, pool, cable)


def starts(hosting):
    actor_id = hosting.cluster.api.create_actor(hosting.pool)
    hosting.cluster.api.wait_running(actor_id)
    begun = hosting.app.wait("actor_start", actorId=actor_id)
    assert (begun["generation"], begun["name"]) == (0, "counter")


def answers_http(hosting):
    actor_id = hosting.actor()
    told = hosting.call(actor_id, "/echo?n=1", "POST", content="hello", headers={"x-a": "b"})
    assert (told["method"], told["path"], told["body"]) == ("POST", "/echo?n=1", "hello")
    assert told["headers"]["x-a"] == "b"
    assert hosting.call(actor_id)["count"] == told["count"] + 1


def echoes_over_a_websocket(hosting):
    actor_id = hosting.actor()
    with hosting.socket(actor_id, "/ws", subprotocols=["rivet"]) as client:
        assert client.subprotocol == "rivet"
        for message in ("text", "", b"\x00\xff", b"", "x" * 70_000):
            client.send(message)
            assert client.recv(SECONDS) == message
        client.close(4001, "enough")
    told = hosting.app.wait("socket_closed", actorId=actor_id)
    assert (told["code"], told["reason"]) == (4001, "enough")


def keeps_a_websocket_over_a_sleep(hosting):
    actor_id = hosting.actor()
    with hosting.socket(actor_id, "/hibernate") as client:
        for generation in range(3):
            client.send(f"life {generation}")
            assert client.recv(SECONDS) == f"life {generation}"
            hosting.fall_asleep(actor_id, generation)
        client.close(4001, "good night")
    told = hosting.app.wait("socket_closed", actorId=actor_id)
    assert (told["code"], told["reason"]) == (4001, "good night")
    assert len(hosting.app.events("socket", actorId=actor_id, restoring=True)) == 3


def wakes_for_its_alarm(hosting):
    actor_id = hosting.actor()
    due = hosting.call(actor_id, "/alarm?ms=2500")["alarm"]
    hosting.fall_asleep(actor_id)
    woken = hosting.app.wait("actor_start", actorId=actor_id, generation=1)
    assert woken["at"] >= due
    hosting.cluster.api.wait_running(actor_id)


def sleeps_and_wakes(hosting):
    actor_id = hosting.actor()
    for generation in range(1, 4):
        hosting.fall_asleep(actor_id, generation - 1)
        assert hosting.call(actor_id)["generation"] == generation
    assert "error" not in hosting.cluster.api.wait_running(actor_id)


def is_destroyed(hosting):
    actor_id = hosting.actor()
    hosting.call(actor_id, "/destroy")
    hosting.cluster.api.wait_actor(actor_id, "destroyed", lambda actor: actor["destroy_ts"] is not None)
    hosting.app.wait("actor_stop", actorId=actor_id)
    assert hosting.cluster.api.call(actor_id).status_code == 404


def keeps_its_actors_when_it_reconnects_to_another_process(hosting):
    actor_id = hosting.actor()
    [before] = hosting.cluster.api.runners(hosting.pool)
    for web in (1, 0):
        count, connects = hosting.call(actor_id)["count"], len(hosting.app.events("connected"))
        hosting.cable.lead_to(port_of(hosting.cluster.urls[web]))
        hosting.cable.cut()
        hosting.app.wait("connected", connects + 1)  # a request under way in the cable would be lost with it
        assert hosting.call(actor_id)["count"] == count + 1
    [after] = hosting.cluster.api.runners(hosting.pool)
    assert after["runner_id"] == before["runner_id"]
    assert len(hosting.app.events("actor_start", actorId=actor_id)) == 1
    assert hosting.cluster.api.actor(actor_id)["connectable_ts"] is not None


def drains_when_told_to_end(hosting):
    actor_id = hosting.actor()
    hosting.app.ask_to_end()
    hosting.cluster.api.wait_asleep(actor_id)
    wait_until(lambda: not hosting.app.alive, lambda: f"it has ended:\n{hosting.app.output()}")
    hosting.cluster.api.wait_runners(hosting.pool, 0)
    assert hosting.app.events("actor_stop", actorId=actor_id)


def is_evicted_for_a_newer_version(hosting):
    config = {"datacenters": {"default": {"normal": {}, "drain_on_version_upgrade": True}}}
    answer = hosting.cluster.api.send("PUT", f"/runner-configs/{hosting.pool}", json=config)
    assert answer.status_code == 200, answer.text
    actor_id = hosting.actor()
    directory = hosting.app.log.parent
    newer = kinds.start(hosting.kind, directory, hosting.cable.url, hosting.pool, version=2, name="newer")
    with newer:
        newer.wait("connected")
        wait_until(lambda: bool(hosting.app.events("evicted")), lambda: hosting.app.output())
        hosting.cluster.api.wait_runners(hosting.pool, 1)
        told = hosting.call(actor_id)
        assert (told["pid"], told["generation"]) == (newer.pid, 1)


def keeps_its_storage_over_a_sleep(hosting):
    actor_id = hosting.actor()
    assert [hosting.call(actor_id, "/count")["durable"] for _ in range(2)] == [1, 2]
    hosting.fall_asleep(actor_id)
    assert hosting.call(actor_id, "/count")["durable"] == 3


ROWS = {
    "start": starts,
    "http": answers_http,
    "websocket": echoes_over_a_websocket,
    "hibernation": keeps_a_websocket_over_a_sleep,
    "kv": keeps_its_storage_over_a_sleep,
    "alarm": wakes_for_its_alarm,
    "sleep": sleeps_and_wakes,
    "destroy": is_destroyed,
    "reconnect": keeps_its_actors_when_it_reconnects_to_another_process,
}
LAST_ROWS = {"drain": drains_when_told_to_end, "eviction": is_evicted_for_a_newer_version}


@pytest.mark.parametrize("row", ROWS)
def test_a_runner_and_the_engine_do_together_what_they_must(shared, row):
    ROWS[row](shared)


@pytest.mark.parametrize("row", LAST_ROWS)
def test_a_runner_leaves_the_engine_in_order(own, row):
    LAST_ROWS[row](own)
