"""A Celery worker whose broker went away takes tasks again as soon as it is back."""

import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from celery.worker import state

from orchestrator.broker import Reconnect
from orchestrator.celery import app
from tests.support.api import wait_until
from tests.support.child import Child
from tests.support.slow_task import BEGUN, DONE
from tests.support.valkey import Valkey

WORKER = "-m celery -A tests.support.slow_task worker --pool solo --without-gossip --without-mingle -Q torpor"
SEND = "from tests.support.slow_task import slow; slow.delay({seconds})"


@pytest.fixture
def valkey():
    directory = Path(tempfile.mkdtemp(prefix="torpor-broker-"))  # short of path, for the socket
    server = Valkey(directory)
    server.start()
    yield server
    server.kill()
    shutil.rmtree(directory)


@pytest.fixture
def worker(valkey, tmp_path):
    env = os.environ | {"REDIS_URL": valkey.url, "DATABASE_URL": f"sqlite:///{tmp_path}/none.sqlite3"}
    child = Child("worker", [sys.executable, *WORKER.split()], tmp_path / "worker.log", env)
    child.start()
    yield child
    child.stop()


def send(worker: Child, seconds: float) -> None:
    """Have a task enqueued, by a process of the worker's environment."""
    sender = Child("sender", [sys.executable, "-c", SEND.format(seconds=seconds)], worker.log, worker.env)
    sender.start()
    wait_until(lambda: not sender.alive, worker.output)


def count(valkey: Valkey, name: str) -> int:
    with redis.Redis.from_url(valkey.url) as client:
        return int(client.get(name) or 0)


def test_a_worker_that_could_not_acknowledge_its_task_takes_the_next_one(valkey, worker):
    send(worker, 1.0)
    wait_until(lambda: count(valkey, BEGUN) == 1, worker.output)
    valkey.kill()
    wait_until(lambda: "Couldn't ack" in worker.output(), worker.output)
    valkey.start()
    send(worker, 0.0)
    wait_until(lambda: count(valkey, DONE) >= 1, worker.output)
    assert worker.alive


@pytest.mark.parametrize(
    ("refuse", "accept"),
    [("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"), ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE")],
    ids=["full", "read-only"],
)
def test_a_worker_whose_broker_refuses_everything_for_a_while_goes_on_afterwards(valkey, worker, refuse, accept):
    send(worker, 0.5)
    wait_until(lambda: count(valkey, BEGUN) == 1, worker.output)
    with redis.Redis.from_url(valkey.url) as client:
        client.execute_command(*refuse.split())
        wait_until(lambda: "Traceback" in worker.output(), worker.output)
        client.execute_command(*accept.split())
    send(worker, 0.0)
    wait_until(lambda: count(valkey, DONE) >= 1, worker.output)
    assert worker.alive


class Consumer:
    """As much of a Celery consumer as `Reconnect` looks at."""

    hub = None

    def __init__(self, *, can_consume: bool) -> None:
        self.task_consumer = SimpleNamespace(channel=SimpleNamespace(qos=self))
        self.can_consume = lambda: can_consume


def looks(consumer: Consumer, times: int) -> None:
    step = Reconnect(consumer)
    step.start(consumer)
    for _ in range(times):
        step._look(consumer)


def test_a_worker_that_has_no_task_and_may_take_none_begins_anew_with_its_connection():
    looks(Consumer(can_consume=False), 1)
    with pytest.raises(redis.ConnectionError):
        looks(Consumer(can_consume=False), 2)
    looks(Consumer(can_consume=True), 5)


def test_a_worker_that_has_a_task_is_left_alone(monkeypatch):
    monkeypatch.setattr(state, "active_requests", {object()})
    looks(Consumer(can_consume=False), 5)


def test_a_channel_keeps_its_client_for_as_long_as_its_connections(valkey):
    with app.connection_for_write(f"redis+socket://{valkey.socket}") as connection:
        channel = connection.default_channel
        client = channel._create_client()
        assert client.ping()
        assert channel._create_client() is client
        assert channel._create_client(asynchronous=True) is not client
        channel._disconnect_pools()
        assert channel._create_client() is not client
        assert channel._create_client().ping()
