"""Health, metadata and datacenters (API §2), with a real Celery worker."""

import sys

import pytest
from django.conf import settings

from orchestrator import VERSION, health
from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow import echo
from tests.support.child import Child
from tests.support.management import Management

WORKER = "-m celery -A orchestrator.celery worker --pool solo --without-gossip --without-mingle -Q torpor"
ALIVE = {"status": "ok", "runtime": "engine", "version": VERSION}


@pytest.fixture
def celery_worker(tmp_path, db, redis_url):
    child = Child("worker", [sys.executable, *WORKER.split()], tmp_path / "worker.log")
    child.start()
    yield child
    child.kill()


def _wait_for_echo(worker: Child) -> None:
    for _ in range(20):
        if echo.is_served("torpor"):
            return
        assert worker.alive, worker.output()
        get_redis().delete("torpor:echo:torpor:asked")
    raise AssertionError(worker.output())


def test_the_engine_is_healthy_while_a_worker_answers(api, celery_worker):
    _wait_for_echo(celery_worker)
    assert api.send("GET", "/health").json == ALIVE
    celery_worker.kill()
    assert api.send("GET", "/health").status == 200  # the echo is fresh still
    get_redis().delete("torpor:echo:torpor")
    answer = api.send("GET", "/health")
    assert answer.status == 503
    expected = {"status": "error", "checks": {"database": "ok", "redis": "ok", "worker": "no echo"}}
    assert answer.json == ALIVE | expected


def test_an_old_echo_proves_nothing(redis_url, monkeypatch):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0)
    get_redis().set("torpor:echo:torpor", "1", px=echo.KEPT_MS)
    assert echo.is_served("torpor")
    get_redis().pexpire("torpor:echo:torpor", echo.KEPT_MS - echo.FRESH_MS - 1)
    assert not echo.is_served("torpor")


def test_a_queue_nobody_serves_does_not_fill_with_echoes(api, redis_url, monkeypatch):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0.1)
    for _ in range(3):
        assert api.send("GET", "/health").status == 503
    prefix = app.conf.broker_transport_options["global_keyprefix"]
    assert get_redis().llen(f"{prefix}torpor") == 1


def test_a_lost_redis_is_told(api, monkeypatch):
    away = get_redis().__class__.from_url("unix:///nowhere/redis.sock")
    monkeypatch.setattr(health, "get_redis", lambda: away)
    checks = api.send("GET", "/health").json["checks"]
    assert checks == {"database": "ok", "redis": "away", "worker": "unknown without redis"}


def test_the_fan_out_tells_of_the_one_datacenter(api, redis_url):
    echo.echo("torpor")
    [entry] = api.ok("GET", "/health/fanout", query={"anything": "x"})["datacenters"]
    assert entry.pop("rtt_ms") >= 0
    assert entry == {
        "datacenter_label": 1,
        "datacenter_name": "default",
        "status": "ok",
        "response": ALIVE,
        "error": None,
    }


def test_the_fan_out_tells_what_is_wrong_and_never_fails(api, redis_url, monkeypatch):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0)
    [entry] = api.ok("GET", "/health/fanout")["datacenters"]
    assert (entry["status"], entry["response"], entry["error"]) == ("error", None, "worker: no echo")


def test_the_metadata_says_what_this_is(api):
    told = Management(None).ok("GET", "/metadata")
    assert (told["runtime"], told["version"]) == ("engine", VERSION)
    texts = ["git_sha", "build_timestamp", "rustc_version", "rustc_host", "cargo_target", "cargo_profile"]
    assert all(isinstance(told[name], str) for name in texts)
    assert told["epoxy_protocol_version"] == told["envoy_protocol_version"] == 0


def test_there_is_one_datacenter_at_the_public_url(api, monkeypatch):
    monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update={"public_url": "https://engine.example"}))
    answer = api.ok("GET", "/datacenters")
    one = {"label": 1, "name": "default", "url": "https://engine.example/"}
    assert answer == {"datacenters": [one], "pagination": {"cursor": None}}
