import os
from collections.abc import Iterator

import kombu
import pytest
import redis as redis_py
from redis.connection import _HiredisParser

from orchestrator import redis
from tests.support.processes import free_port
from tests.support.valkey import Valkey


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    store = Valkey(tmp_path_factory.mktemp("v"), "--port", str(free_port()))
    store.start()
    yield store
    store.kill()


@pytest.fixture
def client(store: Valkey, settings) -> Iterator[redis_py.Redis]:
    settings.REDIS_URL = f"unix://{store.socket}?db=3"
    redis._forget()
    client = redis.get_redis()
    yield client
    client.close()
    redis._forget()


def test_a_process_has_one_client_with_the_fast_parser(client: redis_py.Redis) -> None:
    assert redis.get_redis() is client
    client.set("key", b"\xff")
    assert client.get("key") == b"\xff"
    connection = client.connection_pool.get_connection()
    assert isinstance(connection._parser, _HiredisParser)
    client.connection_pool.release(connection)


def test_a_forked_child_opens_its_own_connection(client: redis_py.Redis) -> None:
    ours = client.client_id()
    child = os.fork()
    if child == 0:
        theirs = redis.get_redis()
        os._exit(theirs is client or theirs.client_id() == ours)
    assert os.waitpid(child, 0)[1] == 0
    assert client.client_id() == ours


def test_a_restart_of_redis_is_survived(client: redis_py.Redis, store: Valkey) -> None:
    assert client.ping()
    store.restart()
    assert client.ping()


def test_a_redis_that_is_away_is_an_error_within_seconds(client: redis_py.Redis, store: Valkey) -> None:
    store.kill()
    with pytest.raises(redis_py.ConnectionError):
        client.ping()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/redis.sock", "redis+socket:///run/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("unix://user:p%40ss@/run/redis.sock?db=3", "redis+socket://user:p%40ss@/run/redis.sock?virtual_host=3"),
        ("redis://localhost", "redis://localhost"),
        ("redis://:secret@redis:6380/2", "redis://:secret@redis:6380/2"),
        ("redis://redis:6380?db=2", "redis://redis:6380/2"),
        ("redis://redis/1?db=2&client_name=x", "redis://redis/2?client_name=x"),
        ("rediss://redis/1", "rediss://redis/1?ssl_cert_reqs=required"),
        ("rediss://redis/1?ssl_cert_reqs=none", "rediss://redis/1?ssl_cert_reqs=none"),
    ],
)
def test_celery_is_told_the_same_address_in_its_own_words(url: str, expected: str) -> None:
    assert redis.celery_broker_url(url) == expected


@pytest.mark.parametrize("form", ["unix://:p%40ss@{socket}?db=3", "redis://:p%40ss@127.0.0.1:{port}?db=3"])
def test_celery_reaches_the_same_database(store: Valkey, client: redis_py.Redis, form: str) -> None:
    client.config_set("requirepass", "p@ss")
    url = form.format(socket=store.socket, port=store.command[-1])
    with kombu.Connection(redis.celery_broker_url(url)) as broker:
        queue = broker.SimpleQueue("letters")
        queue.put("hello")
        assert client.llen("letters") == 1
        queue.close()
