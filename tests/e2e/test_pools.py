"""A pool has the runners it should have: as many as configured, replaced in time, and given up with a reason."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle

import pytest

from tests.support.api import wait_until
from tests.support.census import assert_one_at_a_time, lives
from tests.support.endpoint import node_runner, sdk_endpoint
from tests.support.stories import at_once, engines, generation, running_actor, sleeping_actor

pytestmark = pytest.mark.e2e

SDK = pytest.mark.parametrize("endpoint", ["sdk"], indirect=True)
ROLLING_ACTORS = 100


@engines("sqlite-daphne", "postgresql-uvicorn")
@pytest.mark.parametrize("endpoint", ["sdk", "node-2.2.1"], indirect=True)
def test_a_pool_whose_endpoint_fails_says_so_refuses_at_once_and_recovers(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    endpoint.fail()
    answers = at_once(lambda: cluster.api.call(actor_id, timeout=10) for _ in range(3))
    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(503, "actor_runner_failed")}
    assert cluster.api.pool(pool)["runner_pool_error"]["serverless_http_error"]["status_code"] == 500
    endpoint.go()
    cluster.api.wait_running(actor_id)  # it is tried again, as the actor still waits
    for success in range(1, 4):
        assert cluster.api.call(actor_id, "/sleep").status_code == 200
        cluster.api.wait_asleep(actor_id)
        cluster.api.wait_runners(pool, 0)
        shown = cluster.api.pool(pool).get("runner_pool_error")
        assert (shown is None) == (success == 3), "three good starts in a row clear the error, and no fewer"


@engines("sqlite-daphne")
@SDK
def test_a_stream_may_end_after_its_runner_has_come_and_not_before(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    endpoint.end()
    answer = cluster.api.call(actor_id, timeout=20)
    assert (answer.status_code, answer.json()["code"]) == (503, "actor_runner_failed")
    assert cluster.api.pool(pool)["runner_pool_error"] == "serverless_stream_ended_early"
    endpoint.go()
    cluster.api.wait_running(actor_id)
    assert generation(cluster, actor_id) == 1
    endpoint.cut()
    endpoint.wait("actor_stop", actorId=actor_id, generation=1)
    assert generation(cluster, actor_id) == 2
    cluster.api.delete_actor(actor_id)
    cluster.api.wait_runners(pool, 0)
    assert generation(cluster, cluster.api.create_actor(pool)) == 0
    assert cluster.api.pool(pool).get("runner_pool_error") is None  # three good starts, no failure in between


@engines("sqlite-daphne")
@SDK
def test_a_start_request_that_is_wanted_again_before_its_runner_has_come_serves_who_wants_it(
    cluster, endpoint, pool
):
    api = cluster.api
    endpoint.hold()
    gone, second = (api.create_actor(pool, crash_policy="restart") for _ in range(2))
    endpoint.wait("start_request", 2)
    api.delete_actor(gone)
    wait_for_starts(api, second, ["draining", "starting"])
    third = api.create_actor(pool, crash_policy="restart")
    wait_for_starts(api, second, ["starting", "starting"])
    endpoint.go()
    for actor_id in (second, third):
        api.wait_running(actor_id)
    for actor_id in (second, third):
        assert generation(cluster, actor_id) == 0
    assert len(endpoint.events("start_request")) == len(endpoint.events("actor_start")) == 2


def wait_for_starts(api, pending_actor_id, states):
    """Wait until the start requests of an actor's pool that are under way are in these states, in any order."""
    latest = []

    def look():
        starts = api.explain(pending_actor_id)["pool"]["starts"]
        latest[:] = sorted(start["state"] for start in starts)
        return latest == states

    wait_until(look, lambda: f"the start requests are {states}; they are {latest}")


@engines("postgresql-uvicorn")
@SDK
def test_deleting_a_pool_drains_its_runners_and_ends_their_requests(cluster, endpoint, pool):
    actor_id = running_actor(cluster, pool, "sleep")
    cluster.api.delete_pool(pool)
    cluster.api.wait_runners(pool, 0)
    endpoint.wait("evicted")
    cluster.api.wait_asleep(actor_id)
    assert len(endpoint.events("actor_stop", actorId=actor_id)) == 1
    cluster.api.put_serverless_pool(pool, endpoint.url)
    assert generation(cluster, actor_id) == 1


@engines("sqlite-daphne")
def test_a_pool_that_moves_to_another_endpoint_takes_its_actors_along(cluster, endpoint, pool, tmp_path):
    with sdk_endpoint(tmp_path) as other:
        actor_id = running_actor(cluster, pool, "restart")
        cluster.api.put_serverless_pool(pool, other.url)
        other.wait("actor_start", actorId=actor_id, generation=1)
        cluster.api.wait_running(actor_id)
        assert generation(cluster, actor_id) == 1
        endpoint.wait("evicted")
        cluster.api.wait_runners(pool, 1)
        assert_one_at_a_time([endpoint, other])
        cluster.api.delete_actor(actor_id)
        cluster.api.wait_runners(pool, 0)  # an endpoint with an open stream takes its time to end


@engines("sqlite-daphne")
@SDK
def test_a_pool_has_as_many_runners_as_it_is_told_to(cluster, endpoint, pool):
    api = cluster.api
    api.put_serverless_pool(pool, endpoint.url, min_runners=2)
    api.wait_runners(pool, 2)  # nobody has asked for one
    api.put_serverless_pool(pool, endpoint.url, min_runners=0)
    api.wait_runners(pool, 0)
    actor_id = running_actor(cluster, pool, "restart")
    api.put_serverless_pool(pool, endpoint.url, runners_margin=1, max_runners=2)
    api.wait_runners(pool, 2)  # the one in use, and one to spare
    second = running_actor(cluster, pool, "restart")
    third = api.create_actor(pool, crash_policy="restart")
    assert api.wait_pending(third)["error"] is not None
    assert len(api.runners(pool)) == 2  # and no more than it may have
    api.delete_actor(second)
    api.wait_running(third)  # a slot that is freed goes to who waits
    api.delete_actor(third)
    api.put_serverless_pool(pool, endpoint.url, runners_margin=0, max_runners=2)
    api.wait_runners(pool, 1)  # the idle one has gone
    assert generation(cluster, actor_id) == 0


@engines("sqlite-daphne", "postgresql-uvicorn")
def test_a_rolling_restart_under_traffic_fails_no_request(cluster, tmp_path, record_property):
    pool = "rolling"
    with ExitStack() as processes, ThreadPoolExecutor(8) as clients:
        start = lambda name: processes.enter_context(  # noqa: E731
            node_runner(tmp_path, cluster.urls[0], pool, slots=60, name=name)
        )
        fleet = [start(f"old-{n}") for n in range(3)]
        for host in fleet:
            host.wait("connected")
        actors = [cluster.api.create_actor(pool, crash_policy="restart") for _ in range(ROLLING_ACTORS)]
        for actor_id in actors:
            cluster.api.wait_running(actor_id)
        over = threading.Event()
        turn = cycle(actors)
        outcomes: Counter[int] = Counter()

        def traffic() -> None:
            while not over.is_set():
                answer = cluster.api.call(next(turn))
                outcomes[answer.status_code] += 1

        users = [clients.submit(traffic) for _ in range(4)]
        try:
            for n in range(3):
                fleet.append(start(f"new-{n}"))
                fleet[-1].wait("connected")
                fleet[n].stop()
                assert fleet[n].journal()[-1]["event"] == "shutdown"
        finally:
            over.set()
        for user in users:
            user.result()
        wait_until(lambda: len(cluster.api.runners(pool)) == 3, lambda: "the old runners have gone")
        answers = [cluster.api.call(actor_id) for actor_id in actors]

    record_property("requests", sum(outcomes.values()))
    print(
        f"rolling restart: {dict(outcomes)}, {sum(map(len, lives(fleet).values()))} lives of {len(actors)} actors"
    )
    assert set(outcomes) == {200}
    assert {answer.status_code for answer in answers} == {200}
    assert max(answer.json()["generation"] for answer in answers) >= 1
    assert_one_at_a_time(fleet)
