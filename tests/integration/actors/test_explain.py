"""Why an actor is stuck: each cause as the engine's own workflows leave it, and how it is told."""

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from actors import life
from actors.explain import HIDDEN, explain, in_words
from actors.models import Actor
from orchestrator.redis import get_redis
from orchestrator.workflow import echo, mailbox
from runners import claims
from runners.models import Runner, RunnerConfig, ServerlessConnection
from runners.operations import cordon_runner, pause_pool, resume_pool, retry_pool, uncordon_runner
from tests.support.management import make_actor, make_pool
from tests.support.turns import post, settle

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
SECRET = "Bearer a-secret-of-the-pool"


@pytest.fixture(autouse=True)
def _worker_is_alive():
    echo.echo("torpor")


@pytest.fixture
def pool(namespace):
    config = {"kind": "serverless", "url": "http://127.0.0.1:9", "request_lifespan": 900 * SECOND}
    return make_pool(namespace, headers={"Authorization": SECRET}, **config)


@pytest.fixture
def actor(namespace):
    return make_actor(namespace)


def wake(actor) -> None:
    post(actor, life.Wake("GET /hello"))
    settle()


def send_start(pool) -> str:
    """Do what a connector does: take the request the pool wants and send it."""
    [request] = claims.claim(connector_id="connector", limit=1)
    return request.id


def tell_pool(pool, **signal) -> None:
    mailbox.post("pools", pool.pk, signal)
    settle()


def told(actor, later: timedelta = timedelta()) -> dict:
    return explain(Actor.objects.get(pk=actor.pk), timezone.now() + later)


def live_runner(namespace, *, key: str = "key", **columns) -> Runner:
    now = timezone.now()
    fresh = {"connected_at": now, "last_ping_at": now, "due_at": now + 15 * SECOND, "socket_id": "socket"}
    defaults = {"name": "pool", "runner_version": 1, "total_slots": 1, "protocol_version": 7}
    return Runner.objects.create(namespace=namespace, key=key, **defaults | fresh | columns)


# The causes, in the order of docs/observability.md


def test_no_pool(actor):
    wake(actor)
    seen = told(actor)
    assert seen["cause"] == "no_pool"
    assert "'pool'" in seen["unblocked_by"]


def test_the_pool_is_paused(actor, pool):
    pause_pool(pool)
    wake(actor)
    assert not ServerlessConnection.objects.exists()
    assert (told(actor)["cause"], told(actor)["pool"]["paused"]) == ("pool_paused", True)
    resume_pool(pool)
    settle()
    assert told(actor)["cause"] == "runner_coming"


def test_the_endpoint_answers_500(actor, pool):
    wake(actor)
    request = send_start(pool)
    error = {"serverless_http_error": {"status_code": 500, "body": f"no: {SECRET}"}}
    tell_pool(pool, t="ended", request_id=request, error=error, status=500)
    seen = told(actor)
    assert seen["cause"] == "endpoint_error"
    assert "500" in seen["because"]
    [start] = seen["pool"]["starts"]
    assert (start["status"], start["body"]) == (500, f"no: {HIDDEN}")
    assert start["latency_ms"] >= 0
    retry_at = RunnerConfig.objects.get().retry_at
    assert seen["pool"]["retry_at"] == retry_at.isoformat()
    assert f"{retry_at:%H:%M:%S}" in seen["unblocked_by"]


def test_a_retry_by_hand_ends_the_pools_backoff(actor, pool):
    wake(actor)
    tell_pool(pool, t="ended", request_id=send_start(pool), error="serverless_stream_ended_early")
    assert not ServerlessConnection.objects.exclude(state="ended").exists()
    retry_pool(pool)
    settle()
    assert ServerlessConnection.objects.filter(state="wanted").count() == 1


def test_the_endpoint_hangs(actor, pool):
    wake(actor)
    send_start(pool)
    assert told(actor, SECOND)["cause"] == "runner_coming"
    assert told(actor, 6 * SECOND)["cause"] == "endpoint_hangs"


def test_the_endpoint_answers_200_and_no_runner_connects(actor, pool):
    wake(actor)
    request = send_start(pool)
    tell_pool(pool, t="opened", request_id=request, status=200)
    assert told(actor, SECOND)["cause"] == "runner_coming"
    assert told(actor, 6 * SECOND)["cause"] == "endpoint_never_connects"
    tell_pool(pool, t="ended", request_id=request)
    assert told(actor)["cause"] == "endpoint_never_connects"


def test_the_runner_is_full(namespace, actor):
    make_pool(namespace)
    live_runner(namespace, used_slots=1)
    wake(actor)
    seen = told(actor)
    assert seen["cause"] == "runner_full"
    assert [runner["refused"] for runner in seen["runners"]] == ["full"]


def test_the_runner_is_silent(namespace, actor):
    make_pool(namespace)
    live_runner(namespace, last_ping_at=timezone.now() - 12 * SECOND)
    wake(actor)
    seen = told(actor)
    assert seen["cause"] == "runner_silent"
    assert [runner["refused"] for runner in seen["runners"]] == ["silent"]


def test_the_runner_of_a_running_actor_is_silent(namespace, actor):
    make_pool(namespace)
    runner = live_runner(namespace)
    wake(actor)
    post(actor, life.FromRunner(runner.pk, 0, 0, life.RunningReport()))
    settle()
    assert told(actor)["cause"] is None
    assert told(actor, 12 * SECOND)["cause"] == "runner_silent"


def test_the_start_takes_too_long(namespace, actor):
    make_pool(namespace)
    live_runner(namespace)
    wake(actor)
    assert told(actor)["cause"] == "starting"
    assert told(actor, 6 * SECOND)["cause"] == "start_timeout"
    Actor.objects.filter(pk=actor.pk).update(state_due_at=timezone.now(), due_at=timezone.now())
    post(actor, life.Tick())
    settle()
    seen = told(actor)
    assert (seen["status"], seen["cause"]) == ("asleep", "start_timeout")


def test_backoff_after_a_crash(namespace):
    make_pool(namespace)
    actor = make_actor(namespace, crash_policy="restart")
    runner = live_runner(namespace)
    wake(actor)
    for generation in range(2):  # the first restart waits for nothing
        running = life.FromRunner(runner.pk, generation, 0, life.RunningReport())
        crashed = life.FromRunner(runner.pk, generation, 1, life.StoppedReport(ok=False, message="boom"))
        post(actor, running, crashed)
        settle()
    seen = told(actor)
    assert (seen["status"], seen["cause"]) == ("backoff", "backoff")
    assert "boom" in seen["because"]
    assert f"{Actor.objects.get().due_at:%H:%M:%S}" in seen["unblocked_by"]
    post(actor, life.Reschedule())
    settle()
    assert Actor.objects.values_list("status", "retries").get() == ("starting", 0)


def test_no_worker_serves(actor, pool):
    get_redis().delete("torpor:echo:torpor")
    mailbox.post("actors", actor.pk, {"t": "wake"})
    seen = told(actor)
    assert seen["cause"] == "worker_down"
    assert "1 signals wait" in seen["because"]
    assert (seen["worker"]["serves"], seen["worker"]["echo_age_s"]) == (False, None)


# More of them


def test_no_connector_sends_the_start_request(actor, pool):
    wake(actor)
    assert told(actor, 6 * SECOND)["cause"] == "connector_down"


def test_a_cordoned_runner_gets_no_new_actors_until_it_is_uncordoned(namespace, actor):
    make_pool(namespace)
    runner = live_runner(namespace)
    cordon_runner(runner)
    wake(actor)
    seen = told(actor)
    assert (seen["cause"], seen["runners"][0]["refused"]) == ("runner_away", "cordoned")
    uncordon_runner(runner)
    settle()
    assert Actor.objects.get().status == "starting"


def test_while_the_newest_version_is_cordoned_the_one_before_serves(namespace, actor):
    make_pool(namespace)
    older = live_runner(namespace, runner_version=1)
    cordon_runner(live_runner(namespace, key="newer", runner_version=2))
    wake(actor)
    assert Actor.objects.values_list("status", "runner_id").get() == ("starting", older.pk)


def test_a_pool_starts_another_runner_for_one_that_is_cordoned(namespace, actor, pool):
    runner = live_runner(namespace)
    wake(actor)
    request = ServerlessConnection.objects.filter(pool=pool)
    if not request:
        ServerlessConnection.objects.create(
            pool=pool,
            endpoint_epoch=0,
            state="ready",
            runner_id=runner.pk,
            claimed_until=timezone.now() + 60 * SECOND,
            started_at=timezone.now(),
        )
    cordon_runner(runner)
    other = make_actor(namespace, key="other")
    wake(other)
    assert ServerlessConnection.objects.filter(state="wanted").count() == 1


def test_who_woke_it_and_since_when(actor, pool):
    wake(actor)
    seen = told(actor)
    woken = seen["woken_by"]
    assert (woken["by"], woken["what"], woken["request"]) == ("a request", "wake", "GET /hello")
    assert seen["since"] == woken["at"]


def test_an_actor_that_sleeps_is_not_stuck(actor):
    seen = told(actor)
    assert (seen["cause"], seen["unblocked_by"], seen["woken_by"]) == (None, None, None)


# How it is told


def test_the_api_tells_it_without_secrets(api, actor, pool):
    wake(actor)
    error = {"serverless_connection_error": {"message": f"sent {SECRET}"}}
    tell_pool(pool, t="ended", request_id=send_start(pool), error=error)
    answer = api.ok("GET", f"/actors/{actor.pk}/explain")["explanation"]
    assert answer["cause"] == "endpoint_unreachable"
    assert "a-secret-of-the-pool" not in json.dumps(answer)
    assert HIDDEN in answer["because"]


def test_an_actor_of_another_namespace_is_not_explained(api, actor):
    api.ok("POST", "/namespaces", {"name": "other", "display_name": "Other"}, query={"namespace": "other"})
    answer = api.send("GET", f"/actors/{actor.pk}/explain", query={"namespace": "other"})
    assert answer.code == "actor.not_found"


def test_the_command_tells_it_in_words(actor, pool):
    wake(actor)
    send_start(pool)
    out = StringIO()
    call_command("explain", actor.pk, stdout=out)
    assert out.getvalue().splitlines()[:2] == list(in_words(told(actor)))[:2]
    assert "cause: runner_coming: a runner is being started" in out.getvalue()
    assert "woken by: a request, wake at" in out.getvalue()
    assert "GET /start at" in out.getvalue()
