"""One request to a sleeping actor without a runner: the flow Torpor exists for (DESIGN §1.1)."""

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.endpoint import Application, Endpoint, node_runner
from tests.support.flows import IDEAL, path
from tests.support.stories import at_once, engines, sleeping_actor

pytestmark = pytest.mark.e2e

APPLICATIONS = pytest.mark.parametrize("endpoint", ["node-2.2.1", "sdk"], indirect=True)
OLDER_CLIENTS = pytest.mark.parametrize("endpoint", ["node-2.1.5", "node-2.0.33"], indirect=True)


@engines("sqlite-daphne", "sqlite-uvicorn", "postgresql-daphne", "postgresql-uvicorn")
@APPLICATIONS
def test_a_request_to_a_sleeping_actor_takes_the_ideal_flow(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    earlier = len(cluster.wait_recorded(actor_id, "end of the stream"))

    answer = cluster.api.call(actor_id)

    assert (answer.status_code, answer.json()["actorId"]) == (200, actor_id)
    assert_started_once_more(endpoint, pool, actor_id)
    recorded = cluster.wait_recorded(actor_id, "response start", since=earlier)
    assert [path(arrow) for arrow in recorded] == list(IDEAL)


@engines("postgresql-daphne")
@OLDER_CLIENTS
def test_older_clients_take_it_too(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    assert cluster.api.call(actor_id).status_code == 200
    assert_started_once_more(endpoint, pool, actor_id)


@engines("sqlite-daphne", "postgresql-uvicorn")
def test_twenty_requests_to_one_sleeping_actor_start_it_once(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)

    answers = at_once(lambda: cluster.api.call(actor_id) for _ in range(20))

    assert [answer.status_code for answer in answers] == [200] * 20
    assert sorted(answer.json()["count"] for answer in answers) == list(range(1, 21))
    assert_started_once_more(endpoint, pool, actor_id)


@engines("sqlite-daphne", "postgresql-uvicorn")
def test_fifty_actors_woken_at_once_are_started_once_each(cluster, tmp_path):
    pool = "storm"
    with node_runner(tmp_path, cluster.urls[0], pool, slots=50) as runner:
        runner.wait("connected")
        actors = [cluster.api.create_actor(pool) for _ in range(50)]
        at_once(lambda actor_id=actor_id: sleep(cluster, runner, actor_id) for actor_id in actors)

        answers = at_once(lambda actor_id=actor_id: cluster.api.call(actor_id) for actor_id in actors)

        assert [answer.status_code for answer in answers] == [200] * 50
        assert [answer.json()["actorId"] for answer in answers] == actors
        starts = runner.events("actor_start")
        assert sorted((start["actorId"], start["generation"]) for start in starts) == sorted(
            (actor_id, generation) for actor_id in actors for generation in (0, 1)
        )


def sleep(cluster: Cluster, application: Application, actor_id: str) -> httpx.Response:
    answer = cluster.api.call(actor_id, "/sleep")
    cluster.api.wait_asleep(actor_id)
    return answer


def assert_started_once_more(endpoint: Endpoint, pool: str, actor_id: str) -> None:
    """Assert that since its creation the actor needed one more runner, one more start, and no stop."""
    assert len(endpoint.events("start_request", pool=pool)) == 2
    assert [start["generation"] for start in endpoint.events("actor_start", actorId=actor_id)] == [0, 1]
    assert len(endpoint.events("actor_stop", actorId=actor_id)) == 1
