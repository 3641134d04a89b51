"""Every turn a life can take, seen from outside: how it ends, where it goes on, and that it is led only once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.cable import Cable
from tests.support.census import assert_one_at_a_time
from tests.support.endpoint import node_runner
from tests.support.stories import crash, engines, generation, runner, running_actor

pytestmark = pytest.mark.e2e

LOST_SECONDS = 45  # a runner is lost after 15 s of silence; on a busy machine that is noticed late
WITHOUT_KEY = "2.0.33"  # a release that draws no key of its own


@engines("sqlite-daphne", "postgresql-uvicorn")
def test_an_actor_whose_policy_is_sleep_sleeps_however_it_ended(cluster, tmp_path):
    with runner(cluster, tmp_path, "policy-sleep", "first") as first:
        actor_id = running_actor(cluster, "policy-sleep", "sleep")
        assert cluster.api.call(actor_id, "/sleep").status_code == 200  # graceful
        assert cluster.api.wait_asleep(actor_id).get("error") is None
        assert generation(cluster, actor_id) == 1
        crash(cluster, actor_id, first, 1)
        assert "crashed" in cluster.api.wait_asleep(actor_id)["error"]
        assert generation(cluster, actor_id) == 2
        assert cluster.api.actor(actor_id).get("error") is None  # it has been given a slot again
        first.stop()  # it says that it goes away
        cluster.api.wait_asleep(actor_id)
        assert first.journal()[-1]["event"] == "shutdown"
        with runner(cluster, tmp_path, "policy-sleep", "second") as second:
            assert generation(cluster, actor_id) == 3
            assert_one_at_a_time([first, second])


@engines("postgresql-uvicorn")
def test_an_actor_whose_policy_is_restart_is_started_again_unless_it_wished_to_sleep(cluster, tmp_path):
    pool = "policy-restart"
    with runner(cluster, tmp_path, pool, "first") as first:
        actor_id = running_actor(cluster, pool, "restart")
        assert cluster.api.call(actor_id, "/sleep").status_code == 200  # graceful
        cluster.api.wait_asleep(actor_id)
        assert generation(cluster, actor_id) == 1
        crash(cluster, actor_id, first, 1)
        first.wait("actor_start", actorId=actor_id, generation=2)  # nobody has called it
        cluster.api.wait_running(actor_id)
        with runner(cluster, tmp_path, pool, "second") as second:
            first.stop()
            second.wait("actor_start", actorId=actor_id, generation=3)  # drained, and nobody has called it
            cluster.api.wait_running(actor_id)
            assert_one_at_a_time([first, second])


@engines("sqlite-daphne")
@pytest.mark.parametrize("end", ["error", "draining"])
def test_an_actor_whose_policy_is_destroy_is_destroyed_unless_it_wished_to_sleep(cluster, tmp_path, end):
    pool = f"policy-destroy-{end}"
    with runner(cluster, tmp_path, pool, end) as only:
        actor_id = running_actor(cluster, pool, "destroy")
        assert cluster.api.call(actor_id, "/sleep").status_code == 200  # graceful
        cluster.api.wait_asleep(actor_id)
        assert generation(cluster, actor_id) == 1
        if end == "error":
            crash(cluster, actor_id, only, 1)
        else:
            only.stop()
        cluster.api.wait_destroyed(actor_id)
        assert cluster.api.call(actor_id).status_code == 404
        assert_one_at_a_time([only])


@engines("sqlite-daphne")
@pytest.mark.parametrize("policy", ["sleep", "restart", "destroy"])
def test_an_actor_that_ends_well_of_its_own_will_is_destroyed_whatever_its_policy(cluster, tmp_path, policy):
    pool = f"own-will-{policy}"
    with runner(cluster, tmp_path, pool, policy):
        actor_id = running_actor(cluster, pool, policy)
        assert cluster.api.call(actor_id, "/destroy").status_code == 200
        cluster.api.wait_destroyed(actor_id)


@engines("sqlite-daphne")
def test_the_actors_of_a_lost_runner_go_where_their_policy_says_and_it_keeps_no_copy(cluster, tmp_path):
    pool = "lost"
    with (
        Cable(cluster.urls[0]) as cable,
        node_runner(tmp_path, cable.url, pool, slots=3, name="cut-off") as cut_off,
    ):
        cut_off.wait("connected")
        actors = {policy: running_actor(cluster, pool, policy) for policy in ("sleep", "restart", "destroy")}
        [lost] = cluster.api.runners(pool)
        cable.pull()
        cluster.api.wait_destroyed(actors["destroy"], LOST_SECONDS)
        assert "runner_connection_lost" in cluster.api.wait_asleep(actors["sleep"])["error"]
        cluster.api.wait_pending(actors["restart"])
        with node_runner(tmp_path, cluster.urls[0], pool, slots=3, name="other") as other:
            other.wait("actor_start", actorId=actors["restart"], generation=1)
            cable.plug()
            again = cut_off.wait("connected", count=2)
            assert again["runnerId"] != lost["runner_id"]
            for actor_id in actors.values():  # another id ends every actor it still has
                cut_off.wait("actor_stop", actorId=actor_id, generation=0)
            assert generation(cluster, actors["sleep"]) == 1
            assert generation(cluster, actors["restart"]) == 1
            assert cluster.api.call(actors["destroy"]).status_code == 404


@engines("sqlite-daphne", "postgresql-uvicorn")
def test_a_runner_that_comes_back_in_time_keeps_its_id_and_its_actors(cluster, tmp_path):
    pool = "reconnect"
    with (
        Cable(cluster.urls[0]) as cable,
        node_runner(tmp_path, cable.url, pool, slots=3) as cut_off,
    ):
        runner_id = cut_off.wait("connected")["runnerId"]
        awake, falling_asleep = (running_actor(cluster, pool, "restart") for _ in range(2))
        assert cluster.api.call(falling_asleep, "/sleep?stop_ms=600").status_code == 200
        cut_off.wait("actor_stopping", actorId=falling_asleep)
        with ThreadPoolExecutor(1) as thread:
            cable.pull()
            cut_off.wait("disconnected")
            request = thread.submit(cluster.api.call, awake)  # held until the runner is back
            cut_off.wait("actor_stop", actorId=falling_asleep)  # said to nobody, and said again
            cable.plug()
            answer = request.result()
        assert (answer.status_code, answer.json()["generation"], answer.json()["count"]) == (200, 0, 2)
        assert cut_off.wait("connected", count=2)["runnerId"] == runner_id
        cluster.api.wait_asleep(falling_asleep)
        assert [one["runner_id"] for one in cluster.api.runners(pool)] == [runner_id]
        assert [start["generation"] for start in cut_off.events("actor_start")] == [0, 0]


@engines("postgresql-uvicorn")
def test_a_newer_version_takes_over_from_the_older_one(cluster, tmp_path):
    pool = "upgrade"
    cluster.api.put_normal_pool(pool)  # one that appears by itself leaves the older runners alone
    with runner(cluster, tmp_path, pool, "old") as old:
        actors = [running_actor(cluster, pool, "restart") for _ in range(3)]
        with runner(cluster, tmp_path, pool, "new", version=2) as new:
            answers = [cluster.api.call(actor_id) for _ in range(10) for actor_id in actors]
            assert {answer.status_code for answer in answers} == {200}
            for actor_id in actors:
                new.wait("actor_start", actorId=actor_id, generation=1)
            old.wait_ended()
            assert len(old.events("evicted")) == 1
            assert_one_at_a_time([old, new])


@engines("sqlite-daphne")
@pytest.mark.parametrize(
    ("endpoint", "path", "served_by"),
    [
        # Our SDK finishes what it has begun before it stops; an npm client leaves it to the actor's next life.
        ("sdk", "/slow?ms=6000", 0),
        ("node-2.2.1", "/slow?ms=60000&before=1", 1),
    ],
    indirect=["endpoint"],
)
def test_a_request_in_flight_at_the_end_of_a_lifespan_is_answered(cluster, endpoint, pool, path, served_by):
    cluster.api.put_serverless_pool(pool, endpoint.url, request_lifespan=10, drain_grace_period=7)
    actor_id = cluster.api.create_actor(pool)
    answer = cluster.api.call(actor_id, path)  # begun before the drain, and not over before it
    assert (answer.status_code, answer.json()["generation"]) == (200, served_by)
    assert len(endpoint.events("slow_request")) == 1
    told = [arrow["label"] for arrow in cluster.timeline(actor_id)]
    assert told.index("runner draining") < told.index("response start")


@engines("sqlite-daphne")
def test_of_two_runners_with_one_key_the_older_one_is_evicted(cluster, tmp_path):
    pool = "one-key"
    with runner(cluster, tmp_path, pool, "older", release=WITHOUT_KEY) as older:
        actor_id = running_actor(cluster, pool, "sleep")
        with runner(cluster, tmp_path, pool, "newer", release=WITHOUT_KEY) as newer:
            older.wait_ended()
            assert older.events("evicted")[0]["reason"].startswith("ws.eviction")
            [only] = cluster.api.runners(pool)
            assert newer.wait("connected")["runnerId"] == only["runner_id"]
            answer = cluster.api.call(actor_id)  # the newer one has never heard of the actor's first life
            assert (answer.status_code, answer.json()["generation"]) == (200, 1)
            newer.wait("actor_start", actorId=actor_id, generation=1)


@engines("sqlite-daphne")
def test_ten_naps_in_a_row_cost_each_wake_no_more_than_the_first(cluster, tmp_path, record_property):
    with runner(cluster, tmp_path, "naps", "naps") as only:
        actor_id = running_actor(cluster, "naps", "sleep")
        wakes_s = []
        for nap in range(1, 11):
            assert cluster.api.call(actor_id, "/sleep").status_code == 200
            cluster.api.wait_asleep(actor_id)
            answer = cluster.api.call(actor_id)
            assert (answer.status_code, answer.json()["generation"]) == (200, nap)
            wakes_s.append(answer.elapsed.total_seconds())
    record_property("wakes_ms", [round(seconds * 1000, 1) for seconds in wakes_s])
    print("wakes in ms:", *(round(seconds * 1000, 1) for seconds in wakes_s))
    assert max(wakes_s) < 1.5, wakes_s  # the shortest backoff is 2 s
    assert_one_at_a_time([only])
