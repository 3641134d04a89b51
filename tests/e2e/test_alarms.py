"""An alarm wakes a sleeping actor: in time, never early, whatever has happened to the engine meanwhile."""

import statistics
import time

import pytest
import redis

from tests.support.census import lives
from tests.support.cluster import Cluster
from tests.support.stories import at_once, engines, generation, runner, running_actor, sleeping_actor

pytestmark = pytest.mark.e2e

ALARMS = 9


@engines("sqlite-daphne", "postgresql-uvicorn")
def test_sleepers_are_woken_when_their_alarms_are_due(cluster, tmp_path, record_property):
    with runner(cluster, tmp_path, "alarms", "alarms") as host:
        actors = [running_actor(cluster, "alarms", "sleep") for _ in range(ALARMS)]
        due = {actor_id: set_alarm(cluster, actor_id, 1500 + 137 * n) for n, actor_id in enumerate(actors)}
        at_once(lambda actor_id=actor_id: cluster.api.call(actor_id, "/sleep") for actor_id in actors)
        for actor_id in actors:
            host.wait("actor_start", actorId=actor_id, generation=1)
        led = lives([host])
        delays_ms = [led[actor_id][1].began_ms - due[actor_id] for actor_id in actors]
    record_property("delays_ms", delays_ms)
    print("alarms, late by ms:", *delays_ms)
    assert min(delays_ms) >= 0
    assert statistics.median(delays_ms) < 300, delays_ms  # the sweep alone, once a second, would take 500


@engines("sqlite-daphne")
def test_a_later_alarm_replaces_an_earlier_one_and_none_wakes_nobody(cluster, tmp_path):
    with runner(cluster, tmp_path, "replaced", "replaced") as host:
        replaced, cleared = (running_actor(cluster, "replaced", "sleep") for _ in range(2))
        set_alarm(cluster, replaced, 700)
        set_alarm(cluster, cleared, 700)
        later = set_alarm(cluster, replaced, 2500)
        assert cluster.api.call(cleared, "/alarm/clear").status_code == 200
        for actor_id in (replaced, cleared):
            assert cluster.api.call(actor_id, "/sleep").status_code == 200
        assert host.wait("actor_start", actorId=replaced, generation=1)["at"] >= later
        assert len(host.events("actor_start", actorId=cleared)) == 1
        assert generation(cluster, cleared) == 1


@engines("sqlite-daphne")
def test_an_alarm_that_comes_due_while_the_actor_stops_wakes_it_right_after(cluster, tmp_path):
    with runner(cluster, tmp_path, "stopping", "stopping") as host:
        actor_id = running_actor(cluster, "stopping", "sleep")
        due = set_alarm(cluster, actor_id, 400)
        assert cluster.api.call(actor_id, "/sleep?stop_ms=1000").status_code == 200
        stopped = host.wait("actor_stop", actorId=actor_id, generation=0)["at"]
        woken = host.wait("actor_start", actorId=actor_id, generation=1)["at"]
        assert due < stopped <= woken < stopped + 1500


@engines("sqlite-daphne")
def test_an_alarm_that_comes_due_while_the_actor_runs_is_spent(cluster, tmp_path):
    with runner(cluster, tmp_path, "spent", "spent") as host:
        spent, witness = (running_actor(cluster, "spent", "sleep") for _ in range(2))
        due = set_alarm(cluster, spent, 300)
        assert cluster.api.call(spent, "/slow?ms=600").status_code == 200  # it is due meanwhile
        assert time.time() * 1000 > due
        assert cluster.api.call(spent, "/sleep").status_code == 200
        cluster.api.wait_asleep(spent)
        # Asleep later with a later alarm, the witness is woken; the other one never was.
        set_alarm(cluster, witness, 500)
        assert cluster.api.call(witness, "/sleep").status_code == 200
        host.wait("actor_start", actorId=witness, generation=1)
        assert len(host.events("actor_start", actorId=spent)) == 1
        assert cluster.api.actor(spent)["sleep_ts"] is not None


@engines("sqlite-daphne")
def test_an_alarm_that_was_due_already_when_it_was_set_wakes_as_soon_as_the_actor_sleeps(cluster, tmp_path):
    with runner(cluster, tmp_path, "overdue", "overdue") as host:
        actor_id = running_actor(cluster, "overdue", "sleep")
        set_alarm(cluster, actor_id, -5000)
        assert cluster.api.call(actor_id, "/sleep").status_code == 200
        host.wait("actor_start", actorId=actor_id, generation=1)
        cluster.api.wait_running(actor_id)
        assert cluster.api.call(actor_id, "/sleep").status_code == 200
        cluster.api.wait_asleep(actor_id)  # once is enough
        assert len(host.events("actor_start", actorId=actor_id)) == 2


@pytest.mark.faults
@engines("sqlite-daphne", "postgresql-uvicorn")
def test_an_alarm_outlives_every_process_and_redis(cluster, endpoint, pool):
    actor_id = cluster.api.create_actor(pool)
    due = set_alarm(cluster, actor_id, 6000)
    assert cluster.api.call(actor_id, "/sleep").status_code == 200
    cluster.api.wait_asleep(actor_id)
    cluster.api.wait_runners(pool, 0)
    for child in cluster.children:
        child.kill()
    with redis.Redis.from_url(cluster.redis_url) as connection:
        connection.flushall()
    for child in cluster.children:
        child.start()
    for web in range(len(cluster.webs)):
        cluster.wait_healthy(web)
    assert endpoint.wait("actor_start", actorId=actor_id, generation=1)["at"] >= due
    assert generation(cluster, actor_id) == 1


@engines("sqlite-daphne")
@pytest.mark.parametrize("endpoint", ["sdk"], indirect=True)
def test_an_alarm_has_a_runner_started_for_the_sleeper(cluster, endpoint, pool):
    actor_id = sleeping_actor(cluster, endpoint, pool)
    due = set_alarm(cluster, actor_id, 800)
    assert cluster.api.call(actor_id, "/sleep").status_code == 200
    assert endpoint.wait("actor_start", actorId=actor_id, generation=2)["at"] >= due
    cluster.api.wait_running(actor_id)


def set_alarm(cluster: Cluster, actor_id: str, in_ms: int) -> int:
    """Have an actor set its alarm, and return for when, in ms since the epoch."""
    answer = cluster.api.call(actor_id, f"/alarm?ms={in_ms}")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["alarm"])
