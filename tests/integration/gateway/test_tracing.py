"""One request, one trace: from the client's own, over the wake, to the actor."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.budget import Phase, Wake
from gateway.wake_trace import tell_phases
from orchestrator import tracing
from orchestrator.db import run_db
from tests.support.management import make_actor
from tests.support.scripted_sockets import client_of, take_open
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"


@pytest.fixture
def spans(env):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    env(tracing=True)
    tracing.use(provider)
    yield exporter.get_finished_spans
    tracing.use(None)
    provider.shutdown()


async def call(url: str, actor_id: str, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.get(f"{url}/gateway/{actor_id}/", headers=headers)


async def test_a_request_to_a_sleeping_actor_is_one_trace(spans, engine_url, host, worker, namespace):
    runner = await host()
    actor = await run_db(make_actor, namespace)

    answer = await call(engine_url, actor.pk, traceparent=PARENT)

    assert answer.status_code == 200
    await eventually(lambda: {"gateway", "running"} <= {span.name for span in spans()})
    by_name = {span.name: span for span in spans()}
    assert set(by_name) == {"gateway", "tunnel", "wake", "resolve", "allocate", "start_actor", "running"}
    assert {f"{span.context.trace_id:032x}" for span in spans()} == {TRACE_ID}
    assert f"{by_name['gateway'].parent.span_id:016x}" == PARENT_ID
    gateway_id = by_name["gateway"].context.span_id
    assert {by_name[name].parent.span_id for name in ("tunnel", "wake")} == {gateway_id}
    phases = [by_name[name] for name in ("resolve", "allocate", "start_actor", "running")]
    assert {phase.parent.span_id for phase in phases} == {by_name["wake"].context.span_id}
    assert all(one.end_time == after.start_time for one, after in pairwise(phases))
    passed_on = runner.requests[0].start.headers["traceparent"]
    assert passed_on == f"00-{TRACE_ID}-{gateway_id:016x}-01"


async def test_the_handshake_of_a_websocket_is_one_trace(spans, engine_url, host, worker, namespace):
    runner = await host()
    actor = await run_db(make_actor, namespace)
    async with client_of(engine_url, actor.pk, traceparent=PARENT):
        socket, start = await take_open(runner)
        await socket.accept()
        await eventually(lambda: {"gateway", "running"} <= {span.name for span in spans()})
        by_name = {span.name: span for span in spans()}
        assert set(by_name) == {"gateway", "tunnel", "wake", "resolve", "allocate", "start_actor", "running"}
        assert {f"{span.context.trace_id:032x}" for span in spans()} == {TRACE_ID}
        assert by_name["gateway"].attributes["network.protocol.name"] == "websocket"
        assert start.headers["traceparent"] == f"00-{TRACE_ID}-{by_name['gateway'].context.span_id:016x}-01"


async def test_a_request_that_is_refused_names_the_error(spans, engine_url):
    assert (await call(engine_url, "nobody")).status_code == 404
    [span] = spans()
    assert (span.name, span.attributes["error.type"], span.parent) == ("gateway", "actor.not_found", None)


async def test_without_tracing_the_clients_header_passes_unchanged(engine_url, host, worker, namespace):
    runner = await host()
    actor = await run_db(make_actor, namespace)
    assert (await call(engine_url, actor.pk, traceparent=PARENT)).status_code == 200
    assert runner.requests[0].start.headers["traceparent"] == PARENT


def test_a_cold_wake_has_its_start_request_in_the_trace(spans):
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    phases = tuple((phase, timedelta(milliseconds=10)) for phase in Phase)
    trace = tracing.begin("gateway", None)
    tell_phases(trace, Wake(noon, 0, phases))
    trace.end()
    by_name = {span.name: span for span in spans()}
    assert set(by_name) == {"gateway", "wake", *(phase.value for phase in Phase if phase is not Phase.FIRST_BYTE)}
    began = int(noon.timestamp()) * 1_000_000_000
    assert (by_name["start"].start_time - began, by_name["start"].end_time - began) == (20_000_000, 30_000_000)
    assert by_name["wake"].end_time - began == 60_000_000
