"""A request that is waiting for its actor is answered although something the engine is made of goes away.

The moment is the same every time: the endpoint holds `GET /start`, so the wake is in flight for as long as
the story wants.
"""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import redis

from tests.support.api import wait_until
from tests.support.cluster import Cluster
from tests.support.endpoint import Endpoint
from tests.support.stories import engines, running_actor, sleeping_actor

Request = Future[httpx.Response]
LEASE = """
from runners.models import ServerlessConnection
held = ServerlessConnection.objects.filter(pool__name={!r}).exclude(state="ended")
print(*(connection.claimed_until.timestamp() if connection.claimed_until else 0 for connection in held))
"""

pytestmark = [pytest.mark.e2e, pytest.mark.faults, engines("sqlite-daphne", "postgresql-uvicorn")]


def test_the_worker_is_killed_while_the_runner_is_awaited(cluster, endpoint, pool):
    with held_wake(cluster, endpoint, pool) as (actor_id, request):
        cluster.worker.kill()
        endpoint.go()
        endpoint.wait("connected", pool=pool, count=2)
        cluster.worker.start()
        assert request.result().status_code == 200
    assert_running_in(cluster, endpoint, actor_id, generations=[0, 1])


def test_the_worker_is_killed_with_the_wake_in_its_hands(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    cluster.worker.freeze()
    earlier = signals_posted(cluster)
    with request_to(cluster, actor_id) as request:
        wait_until(lambda: signals_posted(cluster) > earlier, lambda: "the wake is posted")
        cluster.worker.kill()
        cluster.worker.start()
        assert request.result().status_code == 200
    assert_running_in(cluster, endpoint, actor_id, generations=[0, 1])


def test_the_connector_is_killed_while_its_start_request_waits(cluster, endpoint, pool):
    with held_wake(cluster, endpoint, pool) as (actor_id, request):
        cluster.connector.kill()
        cluster.connector.start()
        endpoint.wait("start_request", pool=pool, count=3)
        endpoint.go()
        assert request.result().status_code == 200
    assert_running_in(cluster, endpoint, actor_id, generations=[0, 1])


def test_a_connector_that_is_told_to_end_leaves_its_streams_to_the_others_at_once(cluster, endpoint, pool):
    actor_id = running_actor(cluster, pool, "restart")
    cluster.connector.stop()
    ended_at = time.time()
    held_until = cluster.manage("shell", "-v", "0", "-c", LEASE.format(pool)).split()
    assert held_until, "a stream is wanted"
    assert all(float(until) < ended_at for until in held_until)
    cluster.connector.start()
    endpoint.wait("start_request", count=2, pool=pool)
    cluster.api.wait_running(actor_id)


def test_redis_is_emptied_while_the_runner_is_awaited(cluster, endpoint, pool):
    with held_wake(cluster, endpoint, pool) as (actor_id, request):
        flush(cluster)
        endpoint.go()
        assert request.result().status_code == 200
    assert_running_in(cluster, endpoint, actor_id, generations=[0, 1])


def test_redis_is_emptied_with_the_wake_in_it(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    cluster.worker.freeze()
    earlier = signals_posted(cluster)
    with request_to(cluster, actor_id) as request:
        wait_until(lambda: signals_posted(cluster) > earlier, lambda: "the wake is posted")
        flush(cluster)
        cluster.worker.thaw()
        assert request.result().status_code == 200
    assert_running_in(cluster, endpoint, actor_id, generations=[0, 1])


def test_the_web_process_of_the_runner_is_killed_and_comes_back(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    assert cluster.api.call(actor_id).status_code == 200
    cluster.webs[0].kill()
    cluster.webs[0].start()
    cluster.wait_healthy(0)
    answer = cluster.api.call(actor_id)
    assert answer.status_code == 200
    generation = answer.json()["generation"]
    assert generation in (0, 1)  # 1: this machine was so slow that the runner had been given up meanwhile
    assert answer.json()["count"] == 2 - generation
    assert_running_in(cluster, endpoint, actor_id, generations=list(range(generation + 1)))


def test_the_runner_dies_and_another_one_answers(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    assert cluster.api.call(actor_id).status_code == 200
    endpoint.kill()
    endpoint.start()
    answer = cluster.api.call(actor_id)
    assert (answer.status_code, answer.json()["generation"]) == (200, 1)
    assert_running_in(cluster, endpoint, actor_id, generations=[0, 1])


def test_an_endpoint_that_fails_is_named_in_a_prompt_refusal(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    endpoint.fail()
    answer = cluster.api.call(actor_id, timeout=5)
    assert (answer.status_code, answer.json()["code"]) == (503, "actor_runner_failed")


@contextmanager
def held_wake(cluster: Cluster, endpoint: Endpoint, pool: str) -> Iterator[tuple[str, Request]]:
    """Give a sleeping actor and a request to it that waits, because the endpoint holds the runner back."""
    actor_id = sleeping_actor(cluster, endpoint, pool)
    endpoint.hold()
    with request_to(cluster, actor_id) as request:
        endpoint.wait("start_request", pool=pool, count=2)
        yield actor_id, request


@contextmanager
def request_to(cluster: Cluster, actor_id: str) -> Iterator[Request]:
    """Give the future of a request to an actor, sent now."""
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(cluster.api.call, actor_id)


def signals_posted(cluster: Cluster) -> int:
    """Return how many entries were ever put into streams of Redis: the mailboxes."""
    with redis.Redis.from_url(cluster.redis_url) as connection:
        return int(connection.info("commandstats").get("cmdstat_xadd", {}).get("calls", 0))


def flush(cluster: Cluster) -> None:
    """Empty Redis."""
    with redis.Redis.from_url(cluster.redis_url) as connection:
        connection.flushall()


def assert_running_in(cluster: Cluster, endpoint: Endpoint, actor_id: str, generations: list[int]) -> None:
    """Assert that the actor was started once in each generation and that the engine knows it runs."""
    assert [start["generation"] for start in endpoint.events("actor_start", actorId=actor_id)] == generations
    assert cluster.api.wait_running(actor_id)["sleep_ts"] is None
