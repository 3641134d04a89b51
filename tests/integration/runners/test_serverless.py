"""The connector against an endpoint of the test: one request for each runner wanted (PROTOCOL §7)."""

import asyncio
import base64
from datetime import timedelta

import pytest
from django.utils import timezone

from actors.models import Actor
from orchestrator.access import Right
from orchestrator.db import run_db
from orchestrator.errors import Forbidden
from orchestrator.models import Namespace
from orchestrator.redis import get_redis
from orchestrator.tokens import authorise
from orchestrator.workflow import mailbox
from runners import claims, serverless
from runners.models import RunnerConfig, ServerlessConnection
from runners.protocol.codec import encode_serverless_init
from runners.protocol.messages import ToServerlessServerInit
from tests.support.live import has_state, has_status, wake
from tests.support.management import make_actor, make_pool, signals
from tests.support.scripted_runner import SLEEP
from tests.support.start_endpoint import connector, start_endpoint
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def endpoint():
    async with start_endpoint() as running:
        yield running


@pytest.fixture
async def connected(worker):
    """A connector."""
    async with connector() as running:
        yield running


@pytest.fixture
def pool(namespace, endpoint):
    """A pool of runners of one slot at the endpoint."""
    configured = {"kind": "serverless", "url": endpoint.url, "request_lifespan": timedelta(minutes=5)}
    headers = {"Authorization": "Bearer secret", "X-Rivet-Endpoint": "http://elsewhere/"}
    return make_pool(namespace, headers=headers, slots_per_runner=1, **configured)


@pytest.fixture
def quick(monkeypatch):
    """Have connectors look at their rows more often."""
    monkeypatch.setattr(serverless, "LOOK_SECONDS", 0.1)


def init_of(runner_id):
    return base64.b64encode(encode_serverless_init(ToServerlessServerInit(runner_id, 7))).decode()


async def wanted_actor(namespace, **columns):
    """Make an actor that waits for a runner."""
    actor = await run_db(make_actor, namespace, **columns)
    await wake(actor.pk)
    return actor.pk


async def pool_row(**wanted):
    return await eventually(lambda: run_db(RunnerConfig.objects.filter(**wanted).first))


async def request_row(*states):
    return await eventually(lambda: run_db(ServerlessConnection.objects.filter(state__in=states).first))


async def bring_up(endpoint, host):
    """Answer the next start request with a runner that connects, and return both."""
    request = await endpoint.request()
    await request.answer()
    runner = await host(key=f"k{id(request)}", slots=1)
    await request.event(init_of(runner.runner_id))
    return request, runner


async def test_a_waiting_actor_brings_exactly_one_start_request_and_the_runner_it_names(
    pool, connected, endpoint, host, namespace
):
    actor_id = await wanted_actor(namespace)
    request, runner = await bring_up(endpoint, host)
    await has_status(actor_id, "running")
    row = await request_row("ready")
    assert (row.runner_id, row.status, row.error) == (runner.runner_id, 200, None)
    assert runner.started == [(actor_id, 0)]
    assert len(endpoint.requests) == 1
    assert (request.method, request.path) == ("GET", "/api/start")
    assert not request.closed.is_set()


async def test_the_request_has_the_headers_of_the_protocol(pool, connected, endpoint, namespace, env):
    env(public_url="http://engine.example", admin_token="token", serverless_private=True)
    await wanted_actor(namespace)
    sent = (await endpoint.request()).headers
    wanted = {
        "authorization": "Bearer secret",
        "x-rivet-endpoint": "http://engine.example/",
        "x-rivet-total-slots": "1",
        "x-rivet-runner-name": "pool",
        "x-rivet-namespace-name": "default",
        "x-rivet-namespace-id": "default",
        "accept": "text/event-stream",
        "user-agent": "RivetEngine/0.1.0",
    }
    assert {name: sent.get(name) for name in wanted} == wanted
    ticket = sent["x-rivet-token"]
    assert authorise(Right.RUNNER, "default", ticket).namespace == "default"
    with pytest.raises(Forbidden):  # whoever has the endpoint is no admin
        authorise(Right.ADMIN, "default", ticket)


async def fail_with_status(request):
    await request.answer(500, {"content-type": "text/plain"}, b"x" * 600)


async def fail_with_content_type(request):
    await request.answer(200, {"content-type": "text/html"}, b"<p>")


async def fail_with_text_for_base64(request):
    await request.answer()
    await request.event("not base64")


async def fail_with_bytes_for_payload(request):
    await request.answer()
    await request.event("AAAA")


async def fail_with_an_unknown_runner(request):
    await request.answer()
    await request.event(init_of("0" * 30))


async def fail_with_an_endless_line(request):
    await request.answer()
    for _ in range(70):
        await request.say(b"x" * 1_000)


async def fail_by_ending(request):
    await request.answer(body=b": nothing\n\n")


async def fail_by_hanging_up(request):
    await request.answer()
    request.hang_up()


@pytest.mark.parametrize(
    ("fail", "error"),
    [
        (fail_with_status, {"serverless_http_error": {"status_code": 500, "body": "x" * 512}}),
        (
            fail_with_content_type,
            {
                "serverless_connection_error": {
                    "message": "expected Content-Type header to be text/event-stream, received text/html"
                }
            },
        ),
        (
            fail_with_text_for_base64,
            {"serverless_invalid_sse_payload": {"message": "invalid base64 message", "raw_payload": "not base64"}},
        ),
        (
            fail_with_bytes_for_payload,
            {"serverless_invalid_sse_payload": {"message": "invalid payload", "raw_payload": "AAAA"}},
        ),
        (
            fail_with_an_unknown_runner,
            {
                "serverless_invalid_sse_payload": {
                    "message": "no runner of this pool",
                    "raw_payload": init_of("0" * 30),
                }
            },
        ),
        (
            fail_with_an_endless_line,
            {"serverless_invalid_sse_payload": {"message": "an event without an end", "raw_payload": ""}},
        ),
        (fail_by_ending, "serverless_stream_ended_early"),
        (fail_by_hanging_up, {"serverless_connection_error": None}),
    ],
)
async def test_a_failure_is_the_pools_error_and_the_next_request_waits(
    pool, connected, endpoint, namespace, fail, error
):
    actor_id = await wanted_actor(namespace)
    request = await endpoint.request()
    await fail(request)
    row = await pool_row(error__isnull=False)
    if error == {"serverless_connection_error": None}:  # in the words of the HTTP library
        assert row.error["serverless_connection_error"]["message"]
    else:
        assert row.error == error
    assert (row.failures, row.successes, row.desired) == (1, 0, 1)
    assert timedelta(seconds=1) < row.retry_at - row.failed_at < timedelta(seconds=3)
    assert len(endpoint.requests) == 1
    assert await run_db(Actor.objects.filter(pk=actor_id, status="pending").exists)
    await run_db(RunnerConfig.objects.update, retry_at=timezone.now(), due_at=timezone.now())
    await endpoint.request()


async def test_an_endpoint_that_is_not_there_is_a_failure_too(pool, connected, namespace):
    await run_db(RunnerConfig.objects.update, url="http://127.0.0.1:1/")
    await wanted_actor(namespace)
    row = await pool_row(error__isnull=False)
    assert "ConnectError" in row.error["serverless_connection_error"]["message"]


async def test_an_address_that_is_refused_is_not_called(pool, connected, endpoint, namespace, env):
    env(serverless_private=False)
    await wanted_actor(namespace)
    row = await pool_row(error__isnull=False)
    assert "AddressRefused" in row.error["serverless_connection_error"]["message"]
    assert endpoint.requests == []


async def test_a_redirect_is_no_answer(pool, connected, endpoint, namespace):
    await wanted_actor(namespace)
    request = await endpoint.request()
    await request.answer(302, {"location": "http://169.254.169.254/"}, b"")
    row = await pool_row(error__isnull=False)
    assert row.error == {"serverless_http_error": {"status_code": 302, "body": ""}}


async def test_a_refusal_that_drips_is_cut_off(pool, connected, endpoint, namespace, monkeypatch):
    monkeypatch.setattr(serverless, "EXCERPT_SECONDS", 0.2)
    await wanted_actor(namespace)
    request = await endpoint.request()
    await request.answer(500, {"content-type": "text/plain"})
    await request.say(b"wait")
    row = await pool_row(error__isnull=False)
    assert row.error == {"serverless_http_error": {"status_code": 500, "body": "wait"}}
    await request.has_closed()


async def test_a_name_beyond_ascii_is_told_in_utf8(pool, connected, endpoint, namespace):
    await run_db(RunnerConfig.objects.update, name="größe")
    await wanted_actor(namespace, pool_name="größe")
    told = (await endpoint.request()).headers["x-rivet-runner-name"]
    assert told == "größe"


async def test_pings_comments_and_later_messages_mean_nothing(pool, connected, endpoint, host, namespace):
    await wanted_actor(namespace)
    request = await endpoint.request()
    await request.answer(200, {"content-type": "text/event-stream; charset=utf-8"})
    await request.event("", name="ping")
    await request.event("x", name="other")
    runner = await host()
    await request.event(init_of(runner.runner_id))
    await request.event("not base64")
    await request_row("ready")
    assert (await pool_row()).error is None


async def test_a_surplus_runner_is_drained_and_its_stream_closed(
    pool, connected, endpoint, host, namespace, quick
):
    actor_id = await wanted_actor(namespace)
    request, runner = await bring_up(endpoint, host)
    await has_status(actor_id, "running")
    await request_row("ready")
    await runner.say(actor_id, SLEEP)
    assert await runner.has_closed() == (1000, "ws.eviction")
    await request.has_closed()
    assert (await request_row("ended")).error is None
    assert (await pool_row()).error is None
    assert len(endpoint.requests) == 1


async def test_a_stream_that_ends_after_a_good_init_is_no_error_and_another_is_begun_if_wanted(
    pool, connected, endpoint, host, namespace
):
    # Its demand never ends: with an actor that fell asleep in between, the next request would be surplus again.
    actor_id = await wanted_actor(namespace, crash_policy="restart")
    request, runner = await bring_up(endpoint, host)
    await has_status(actor_id, "running")
    await request_row("ready")
    await request.end()
    assert await runner.has_closed() == (1000, "ws.eviction")
    _, second = await bring_up(endpoint, host)
    await has_status(actor_id, "running", generation=1)
    await request_row("ready")
    assert second.started == [(actor_id, 1)]
    assert len(endpoint.requests) == 2
    assert (await pool_row()).error is None


# Connectors come and go


async def test_the_requests_of_a_dead_connector_are_sent_anew_once_its_lease_is_over(
    pool, worker, endpoint, host, namespace, env
):
    env(serverless_claim_ms=500)
    actor_id = await wanted_actor(namespace)
    await request_row("wanted")
    await run_db(claims.claim, connector_id="dead", limit=10)
    async with connector():
        await bring_up(endpoint, host)
        await has_status(actor_id, "running")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(("claim_ms", "seconds"), [(500, 1 / 6), (1_500, 0.5), (3_000, 1.0), (5_000, 1.0)])
def test_a_connector_looks_often_enough_for_its_claims_to_hold(claim_ms, seconds):
    assert serverless.look_seconds(claim_ms) == pytest.approx(seconds)


async def test_a_connector_that_ends_lets_go_at_once_and_nobody_takes_it_for_a_failure(
    pool, worker, endpoint, host, namespace
):
    actor_id = await wanted_actor(namespace, crash_policy="restart")
    async with connector():
        request, runner = await bring_up(endpoint, host)
        await has_status(actor_id, "running")
        await request_row("ready")
    await request.has_closed()
    assert (await request_row("ready")).claimed_until < timezone.now()
    assert not [signal for signal in await run_db(signals, "pools", pool.pk) if signal["t"] == "ended"]
    async with connector():
        await bring_up(endpoint, host)
        assert await runner.has_closed() == (1000, "ws.eviction")
        await has_status(actor_id, "running", generation=1)
        await request_row("ready")
    assert (await pool_row()).error is None
    assert await run_db(ServerlessConnection.objects.count) == 1


async def test_a_stream_another_connector_has_taken_is_dropped_without_a_word(
    pool, connected, endpoint, namespace, quick
):
    await wanted_actor(namespace)
    request = await endpoint.request()
    await request.answer()
    await request_row("open")
    await run_db(ServerlessConnection.objects.update, claimed_by="another")
    await request.has_closed()
    await eventually(lambda: run_db(RunnerConfig.objects.filter(failures=0).exists))
    row = await request_row("open")
    assert (row.claimed_by, row.error) == ("another", None)


@pytest.mark.parametrize("lost", ["opened and ready", "ended"])
async def test_what_redis_loses_of_a_stream_is_told_again(
    pool, connected, worker, endpoint, host, namespace, quick, lost
):
    await wanted_actor(namespace)
    request = await endpoint.request()
    await request.answer()
    runner = await host()
    if lost == "ended":
        await request.event(init_of(runner.runner_id))
        await request_row("ready")
    worker.pause()
    if lost == "ended":
        await request.end()
    else:
        await request.event(init_of(runner.runner_id))
    awaited = lost.rpartition(" ")[2]
    await eventually(lambda: awaited in [signal["t"] for signal in signals("pools", pool.pk)])
    get_redis().flushall()
    worker.go()
    await request_row("ready" if awaited == "ready" else "ended")
    assert (await pool_row()).error is None


async def test_the_runner_of_a_request_that_was_let_go_is_named_until_the_pool_knows_it(
    pool, connected, worker, endpoint, host, namespace, quick
):
    await run_db(RunnerConfig.objects.update, drain_grace_period=timedelta(minutes=1), min_runners=1)
    await run_db(mailbox.post, "pools", pool.pk, {"t": "bump"})
    request = await endpoint.request()
    await request.answer()
    await request_row("open")
    await run_db(RunnerConfig.objects.update, min_runners=0)
    await run_db(mailbox.post, "pools", pool.pk, {"t": "bump"})
    await request_row("draining")
    worker.pause()
    runner = await host(slots=1)
    await request.event(init_of(runner.runner_id))
    await eventually(lambda: "ready" in [signal["t"] for signal in signals("pools", pool.pk)])
    get_redis().flushall()
    worker.go()
    assert await runner.has_closed() == (1000, "ws.eviction")
    assert await request_row("ended", "closing")


async def test_a_stream_cannot_name_the_runner_of_another_namespace(pool, connected, endpoint, host, namespace):
    await run_db(Namespace.objects.create, name="other", display_name="Other")
    victim = await host(namespace="other")
    await wanted_actor(namespace)
    request = await endpoint.request()
    await request.answer()
    await request.event(init_of(victim.runner_id))
    row = await pool_row(error__isnull=False)
    assert row.error["serverless_invalid_sse_payload"]["message"] == "no runner of this pool"
    await request.has_closed()
    assert (await has_state(victim.runner_id, "live")).drain_at is None


async def test_many_runners_are_started_at_once_as_far_as_the_pool_allows(
    pool, connected, endpoint, host, namespace
):
    await run_db(RunnerConfig.objects.update, max_runners=3)
    actors = await asyncio.gather(*(wanted_actor(namespace) for _ in range(5)))
    for _ in range(3):
        await bring_up(endpoint, host)
    await eventually(lambda: run_db(lambda: Actor.objects.filter(status="running").count() == 3))
    assert len(endpoint.requests) == 3
    assert await run_db(Actor.objects.filter(pk__in=actors, status="pending").count) == 2
