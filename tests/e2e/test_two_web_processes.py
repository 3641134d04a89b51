"""The runner's socket in one web process, the caller in another."""

import time

import pytest

from tests.support.api import Api
from tests.support.endpoint import node_runner
from tests.support.stories import engines, sleeping_actor

pytestmark = [pytest.mark.e2e, engines("sqlite-daphne", "postgresql-uvicorn")]

WAKES = 5
NO_BACKOFF_SECONDS = 1.0  # the shortest backoff after a failure is 2 s


@pytest.fixture
def normal_pool(request, cluster, tmp_path):
    """A pool with one long-lived runner on the first web process, and that runner."""
    pool = f"normal-{request.node.name}"[:60]
    with node_runner(tmp_path, cluster.urls[0], pool, slots=10) as runner:
        runner.wait("connected")
        yield pool, runner


def test_an_actor_sleeps_and_wakes_in_its_next_generation_without_delay(cluster, normal_pool):
    pool, runner = normal_pool
    actor_id = sleeping_actor(cluster, runner, pool, serverless=False)
    with Api(cluster.urls[1]) as other:
        for generation in range(1, WAKES + 1):
            began = time.monotonic()
            answer = other.call(actor_id, "/echo?n=1", "POST", content=b"hello")
            took = time.monotonic() - began
            assert (answer.status_code, answer.json()["generation"]) == (200, generation)
            assert answer.json()["body"] == "hello"
            assert took < NO_BACKOFF_SECONDS
            assert other.call(actor_id, "/sleep").status_code == 200
            runner.wait("actor_stop", actorId=actor_id, generation=generation)
            assert "error" not in other.wait_asleep(actor_id)


def test_a_large_body_goes_there_and_back(cluster, normal_pool):
    pool, _ = normal_pool
    actor_id = cluster.api.create_actor(pool)
    body = "x" * (15 * 1024 * 1024)
    with Api(cluster.urls[1]) as other:
        answer = other.call(actor_id, "/echo", "POST", content=body)
    assert answer.status_code == 200
    assert answer.json()["body"] == body
