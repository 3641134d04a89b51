"""An actor can be destroyed in whatever state it is, and whoever waits for it is told at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.api import wait_until
from tests.support.cluster import Cluster
from tests.support.endpoint import Application
from tests.support.stories import crash, engines, runner, running_actor

pytestmark = pytest.mark.e2e

STATES = ["pending", "starting", "running", "stopping", "backing off", "asleep"]
SOON_SECONDS = 5.0


@engines("sqlite-daphne")
@pytest.mark.parametrize("state", STATES[::2])
def test_whoever_waits_for_a_destroyed_actor_is_told_at_once(cluster, tmp_path, state):
    assert_destroyed_from(state, cluster, tmp_path)


@engines("postgresql-uvicorn")
@pytest.mark.parametrize("state", STATES[1::2])
def test_whoever_waits_for_a_destroyed_actor_is_told_at_once_on_postgresql(cluster, tmp_path, state):
    assert_destroyed_from(state, cluster, tmp_path)


def assert_destroyed_from(state: str, cluster: Cluster, directory: Path) -> None:
    """Bring an actor into the state, destroy it, and assert what everybody is told of it."""
    pool = f"destroy-{state.replace(' ', '-')}"
    with runner(cluster, directory, pool, "host") as host, awake_at_the_end(host):
        actor_id, wake, told = REACH[state](cluster, host, pool)
        with ThreadPoolExecutor(1) as thread:
            if wake:
                request = thread.submit(cluster.api.call, actor_id, "/slow?ms=60000")
                if state == "running":
                    host.wait("slow_request", actorId=actor_id)
                else:
                    cluster.wait_recorded(actor_id, wake)
                assert not request.done()
            cluster.api.delete_actor(actor_id)
            if wake:
                answer = request.result(SOON_SECONDS)
                assert (answer.status_code, answer.json()["code"]) == told
        assert cluster.api.call(actor_id).status_code == 404
        assert cluster.api.actor(actor_id)["destroy_ts"] is not None
        host.thaw()
        assert_no_copy_is_left(host, actor_id)
        if state not in ("pending", "asleep", "backing off"):
            running_actor(cluster, pool, "sleep")  # its slot can be used again


def assert_no_copy_is_left(host: Application, actor_id: str) -> None:
    """Assert that the runner ends the copies it has."""

    def none_left() -> bool:
        begun, ended = (len(host.events(name, actorId=actor_id)) for name in ("actor_start", "actor_stopping"))
        return begun == ended

    wait_until(none_left, lambda: f"{actor_id} is stopped; its runner said:\n{host.output()}")


@contextmanager
def awake_at_the_end(host: Application) -> Iterator[None]:
    """Let a frozen runner go on, however the story ends."""
    try:
        yield
    finally:
        host.thaw()


# Of each state: the actor brought into it, how the wake of a request is recorded, what that request is told.

Reached = tuple[str, str, tuple[int, str]]
WAITED = (400, "destroyed_while_waiting_for_ready")
IN_FLIGHT = (404, "not_found")


def pending(cluster: Cluster, host: Application, pool: str) -> Reached:
    """Create one more actor than the pool has slots."""
    for _ in range(10):
        running_actor(cluster, pool, "restart")
    actor_id = cluster.api.create_actor(pool, crash_policy="restart")
    cluster.api.wait_pending(actor_id)
    return actor_id, "wake (waits already)", WAITED


def starting(cluster: Cluster, host: Application, pool: str) -> Reached:
    """Create an actor on a runner that hears nothing."""
    host.freeze()
    actor_id = cluster.api.create_actor(pool)
    cluster.wait_recorded(actor_id, "StartActor")
    return actor_id, "wake (ignored, already allocated)", WAITED


def running(cluster: Cluster, host: Application, pool: str) -> Reached:
    """Create an actor that runs."""
    return running_actor(cluster, pool, "sleep"), "request start", IN_FLIGHT


def stopping(cluster: Cluster, host: Application, pool: str) -> Reached:
    """Create an actor whose stop takes a minute."""
    actor_id = running_actor(cluster, pool, "sleep")
    assert cluster.api.call(actor_id, "/sleep?stop_ms=60000").status_code == 200
    host.wait("actor_stopping", actorId=actor_id)
    return actor_id, "wake (deferred until stopped)", WAITED


def asleep(cluster: Cluster, host: Application, pool: str) -> Reached:
    """Create an actor that sleeps: nobody can wait for it, as whoever does wakes it."""
    actor_id = running_actor(cluster, pool, "sleep")
    assert cluster.api.call(actor_id, "/sleep").status_code == 200
    cluster.api.wait_asleep(actor_id)
    return actor_id, "", WAITED


def backing_off(cluster: Cluster, host: Application, pool: str) -> Reached:
    """Create an actor that has failed twice, and waits. Should that be over too soon, its runner hears nothing."""
    actor_id = running_actor(cluster, pool, "restart")
    crash(cluster, actor_id, host, 0)
    host.wait("actor_start", actorId=actor_id, generation=1)
    cluster.api.wait_running(actor_id)
    crash(cluster, actor_id, host, 1)
    cluster.api.wait_actor(actor_id, "backing off", lambda actor: actor["reschedule_ts"] is not None)
    host.freeze()
    return actor_id, "wake (waits already)", WAITED


REACH: dict[str, Callable[[Cluster, Application, str], Reached]] = {
    "pending": pending,
    "starting": starting,
    "running": running,
    "stopping": stopping,
    "backing off": backing_off,
    "asleep": asleep,
}
