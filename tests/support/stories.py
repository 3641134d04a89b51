"""Beginnings that several stories share, and the pictures they are compared with."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.cluster import Cluster
from tests.support.endpoint import Application, node_runner

T = TypeVar("T")

STORY_SECONDS = 300  # the first story waits for its engine to start, on a busy machine for a while
ENGINES = ("sqlite-daphne", "sqlite-uvicorn", "postgresql-daphne", "postgresql-uvicorn")
GUARDED = ("sqlite-daphne-guarded", "postgresql-uvicorn-guarded")  # they ask for tokens


def engines(*names: str) -> pytest.MarkDecorator:
    """Tell the story once on each of these engines, `store-server`."""
    assert set(names) <= {*ENGINES, *GUARDED}
    return pytest.mark.parametrize("cluster", [_engine(name) for name in names], indirect=True, scope="session")


def _engine(name: str) -> object:
    marks = [pytest.mark.xdist_group(name), pytest.mark.timeout(STORY_SECONDS)]
    if name.startswith("postgresql"):
        marks.append(pytest.mark.postgres)
    return pytest.param(name, id=name, marks=marks)


def sleeping_actor(cluster: Cluster, application: Application, pool: str, *, serverless: bool = True) -> str:
    """Create an actor, let it run and fall asleep; return its id. A serverless pool then has no runner."""
    actor_id = cluster.api.create_actor(pool)
    cluster.api.wait_running(actor_id)
    assert cluster.api.call(actor_id, "/sleep").status_code == 200
    application.wait("actor_stop", actorId=actor_id)
    cluster.api.wait_asleep(actor_id)
    if serverless:
        cluster.api.wait_runners(pool, 0)
    return actor_id


@contextmanager
def runner(
    cluster: Cluster, directory: Path, pool: str, name: str, *, version: int = 1, release: str = "2.2.1"
) -> Iterator[Application]:
    """Give a connected Node runner with ten slots. Releases that draw no key of their own have the pool's name."""
    application = node_runner(
        directory, cluster.urls[0], pool, slots=10, name=name, version=version, release=release, key=pool
    )
    with application as running:
        running.wait("connected")
        yield running


def running_actor(cluster: Cluster, pool: str, policy: str) -> str:
    """Create an actor and return its id when it has answered once, in its first generation."""
    actor_id = cluster.api.create_actor(pool, crash_policy=policy)
    assert generation(cluster, actor_id) == 0
    return actor_id


def generation(cluster: Cluster, actor_id: str) -> int:
    """Call an actor, and return which of its lives has answered."""
    answer = cluster.api.call(actor_id)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["generation"])


def crash(cluster: Cluster, actor_id: str, application: Application, generation: int) -> None:
    """Have an actor stop with an error in a moment, and wait until it has."""
    assert cluster.api.call(actor_id, "/crash?ms=1").status_code == 200
    application.wait("actor_stop", actorId=actor_id, generation=generation)


def at_once(calls: Iterable[Callable[[], T]]) -> list[T]:
    """Make all the calls at the same time and return their results in the order given."""
    waiting = list(calls)
    with ThreadPoolExecutor(len(waiting)) as threads:
        return list(threads.map(lambda call: call(), waiting))
