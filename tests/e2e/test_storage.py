"""What an actor has stored is there in its next life, for nobody else, and survives the engine being killed."""

import base64
import threading
from urllib.parse import quote

import httpx
import pytest

from tests.support.stories import engines

pytestmark = pytest.mark.e2e

APPLICATIONS = pytest.mark.parametrize("endpoint", ["node-2.2.1", "sdk"], indirect=True)
OLDER_CLIENTS = pytest.mark.parametrize("endpoint", ["node-2.1.5", "node-2.0.33"], indirect=True)

COUNT_KEY = quote(base64.b64encode(b"count").decode(), safe="")
SEEN = {
    "got": ["2", None, "0"],
    "prefix": ["walk/a=0", "walk/b=1", "walk/c=2", "walk/d=3"],
    "range": ["walk/a=0", "walk/b=1"],
    "last": ["walk/d=3"],
    "left": ["walk/c=2", "walk/d=3"],
    "refused": "key is too long (max 2048 bytes)",
    "all": [],
}


@engines("sqlite-daphne", "postgresql-uvicorn")
@APPLICATIONS
def test_the_next_generation_reads_what_the_last_one_wrote_and_another_actor_does_not(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    assert [count(cluster, actor_id) for _ in range(3)] == [1, 2, 3]
    assert cluster.api.call(actor_id, "/sleep").status_code == 200
    cluster.api.wait_asleep(actor_id)
    assert stored_count(cluster, actor_id) == 3  # without waking it
    assert cluster.api.actor(actor_id)["connectable_ts"] is None

    answer = cluster.api.call(actor_id, "/count").json()
    assert (answer["generation"], answer["durable"]) == (1, 4)
    assert count(cluster, cluster.api.create_actor(pool)) == 1

    cluster.api.delete_actor(actor_id)
    gone = cluster.api.send("GET", f"/actors/{actor_id}/kv/keys/{COUNT_KEY}")
    assert (gone.status_code, gone.json()["code"]) == (400, "kv_key_not_found")


@engines("sqlite-daphne", "postgresql-uvicorn")
@APPLICATIONS
def test_a_client_can_do_all_that_the_storage_can(cluster, endpoint, pool):
    assert_walk(cluster, pool)


@engines("sqlite-daphne", "postgresql-uvicorn")
@OLDER_CLIENTS
def test_older_clients_can_too(cluster, endpoint, pool):
    assert_walk(cluster, pool)


@pytest.mark.faults
@engines("sqlite-daphne", "postgresql-uvicorn")
def test_what_was_acknowledged_before_the_engine_was_killed_is_there(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    acknowledged = [count(cluster, actor_id)]
    enough = threading.Event()

    def go_on_counting():
        with httpx.Client(base_url=cluster.urls[1], timeout=2) as client:
            while True:
                try:
                    acknowledged.append(client.get(f"/gateway/{actor_id}/count").json()["durable"])
                except (httpx.HTTPError, KeyError, ValueError):
                    return
                if len(acknowledged) > 20:
                    enough.set()

    counting = threading.Thread(target=go_on_counting)
    counting.start()
    try:
        assert enough.wait(20)
        for child in (cluster.webs[0], cluster.worker):  # the runner's socket is at the first
            child.kill()
        counting.join(20)
        assert stored_count(cluster, actor_id, web=1) >= acknowledged[-1]
    finally:
        for child in (cluster.webs[0], cluster.worker):
            child.restart()
        cluster.wait_healthy(0)
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert count(cluster, actor_id) > acknowledged[-1]


def count(cluster, actor_id):
    answer = cluster.api.call(actor_id, "/count")
    assert answer.status_code == 200, answer.text
    return answer.json()["durable"]


def stored_count(cluster, actor_id, web=0):
    url = f"{cluster.urls[web]}/actors/{actor_id}/kv/keys/{COUNT_KEY}"
    told = httpx.get(url, params={"namespace": "default"}).raise_for_status().json()
    return int(base64.b64decode(told["value"]))


def assert_walk(cluster, pool):
    actor_id = cluster.api.create_actor(pool)
    answer = cluster.api.call(actor_id, "/storage")
    assert answer.status_code == 200, answer.text
    assert answer.json()["seen"] == SEEN
