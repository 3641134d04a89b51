"""An engine on a restored database, its Redis empty, goes on with what its actors had stored at the backup."""

import itertools
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support import postgres, valkey
from tests.support.api import Api, wait_until
from tests.support.cluster import Cluster
from tests.support.endpoint import Application, node_runner, sdk_runner
from tests.support.relay import Relay

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.xdist_group("restore"), pytest.mark.timeout(200)]

COUNTERS = 4
LOST_MS = 5_000
"""A runner that was there at the backup is a new one to the restored engine: as any restore takes longer."""
ALARM_MS = 60_000
Backup = Callable[[Cluster], Callable[[], str]]
"""Makes one of a running engine; what it returns restores it, and gives the `DATABASE_URL`."""


@contextmanager
def on_sqlite(directory: Path) -> Iterator[tuple[str, Backup]]:
    def backup(cluster: Cluster) -> Callable[[], str]:
        copy = directory / "copy.sqlite3"
        cluster.manage("backup", str(copy))

        def restore() -> str:
            for name in ("torpor.sqlite3-wal", "torpor.sqlite3-shm"):
                (directory / name).unlink(missing_ok=True)
            shutil.copyfile(copy, directory / "torpor.sqlite3")
            return f"sqlite:///{directory}/torpor.sqlite3"

        return restore

    yield f"sqlite:///{directory}/torpor.sqlite3", backup


@contextmanager
def on_postgresql(directory: Path) -> Iterator[tuple[str, Backup]]:
    with postgres.server() as server:

        def backup(cluster: Cluster) -> Callable[[], str]:
            dump = server.dump("torpor")

            def restore() -> str:
                restored = server.create_database("restored")
                server.restore("restored", dump)
                return restored

            return restore

        yield server.create_database("torpor"), backup


class Callers:
    """Clients that count in their actors' storage, one each, until told to stop."""

    def __init__(self, url: str, actors: list[str]) -> None:
        self.acknowledged = dict.fromkeys(actors, 0)
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(actor,), daemon=True) for actor in actors]

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, actor_id: str) -> None:
        for number in itertools.count(1):
            with Api(self._url) as api:
                if self._over.is_set():
                    return
                try:
                    answer = api.call(actor_id, "/count")
                    if number % 5 == 0:
                        api.call(actor_id, "/sleep")
                except httpx.TransportError:
                    continue
            if answer.status_code == 200:
                self.acknowledged[actor_id] = answer.json()["durable"]

    def go_on(self) -> None:
        """Wait until each has counted further."""
        before = dict(self.acknowledged)
        wait_until(lambda: all(self.acknowledged[one] > count for one, count in before.items()), lambda: self, 60)


@pytest.mark.parametrize(
    ("store", "runner_of"),
    [
        pytest.param(on_sqlite, node_runner, id="sqlite-npm"),
        pytest.param(on_postgresql, sdk_runner, id="postgresql-sdk", marks=pytest.mark.postgres),
    ],
)
def test_a_restored_engine_has_what_was_stored_before_its_backup_and_leads_no_life_twice(
    tmp_path, store, runner_of
):
    env = {"TORPOR_RUNNER_LOST_MS": str(LOST_MS), "TORPOR_RUNNER_PING_INTERVAL_MS": "1000"}
    with ExitStack() as stack:
        database_url, backup = stack.enter_context(store(tmp_path))
        cable = stack.enter_context(Relay(0))
        first = Cluster(tmp_path, database_url, stack.enter_context(valkey.running()), webs=1, env=env)
        cable.lead_to(int(first.urls[0].rpartition(":")[2]))
        stack.callback(first.stop)
        first.start()
        runner = stack.enter_context(runner_of(tmp_path, cable.url, "pool", slots=20))
        runner.wait("connected")
        counters = [first.api.create_actor("pool") for _ in range(COUNTERS)]
        sleeper = first.api.create_actor("pool")
        first.api.call(sleeper, f"/alarm?ms={ALARM_MS}")
        first.api.call(sleeper, "/sleep")
        runner.wait("actor_stop", actorId=sleeper)
        with Callers(first.urls[0], counters) as callers:
            callers.go_on()
            before = dict(callers.acknowledged)
            restore = backup(first)
            taken_at = time.monotonic()
            after = dict(callers.acknowledged)
            callers.go_on()
            late = first.api.create_actor("pool")
            first.api.call(late)
            for child in first.children:
                child.kill()
        second = Cluster(tmp_path, restore(), stack.enter_context(valkey.running()), webs=1, env=env)
        cable.cut()
        cable.lead_to(int(second.urls[0].rpartition(":")[2]))
        wait_until(lambda: time.monotonic() > taken_at + LOST_MS / 1000, lambda: "the backup is of age")
        stack.callback(second.stop)
        second.start()
        runner.wait("connected", 2)
        for actor_id in counters:
            answer = second.api.call(actor_id, "/count").json()
            assert before[actor_id] < answer["durable"] <= after[actor_id] + 2
            assert second.api.call(actor_id, "/count").json()["durable"] == answer["durable"] + 1
        assert second.api.actor(sleeper)["sleep_ts"] is not None
        assert second.api.call(sleeper).status_code == 200
        assert second.api.call(late).status_code == 404
        leads_no_life_twice(runner, [*counters, sleeper])
        wait_until(lambda: not living(runner)[late], lambda: f"{late} ends, which was made after the backup")


def living(runner: Application) -> dict[str, int]:
    """Return how many lives each actor has in the runner's process now."""
    lives: dict[str, int] = defaultdict(int)
    for event in runner.journal():
        if event["event"] in ("actor_start", "actor_stop"):
            lives[event["actorId"]] += 1 if event["event"] == "actor_start" else -1
            assert 0 <= lives[event["actorId"]] <= 1, event
    return lives


def leads_no_life_twice(runner: Application, actors: list[str]) -> None:
    """Assert that no life began while another went on, and that each actor has one now."""
    lives = living(runner)
    assert {actor: lives[actor] for actor in actors} == dict.fromkeys(actors, 1)
