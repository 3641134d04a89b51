"""A client's request to its actor and the answer back, as both ends see them (PROTOCOL §5.2, §5.3, §8)."""

import asyncio

import httpx
import pytest

from gateway import client as client_side
from gateway.hub import open_hub
from gateway.waiting import _wakers
from orchestrator import lifespan
from orchestrator.db import run_db
from orchestrator.ids import new_id
from orchestrator.models import TimelineEntry
from runners.protocol.messages import (
    ToClientCommands,
    ToClientRequestAbort,
    ToClientTunnelMessage,
    ToServerResponseAbort,
    ToServerResponseStart,
    ToServerTunnelMessage,
)
from tests.support.gateway import NOTHING, refusal
from tests.support.live import running_actor
from tests.support.management import make_actor, make_destroyed_actor
from tests.support.scripted_runner import CRASHED
from tests.support.web import eventually

pytestmark = pytest.mark.django_db(transaction=True)

MIB = 1024 * 1024


async def test_a_sleeping_actor_is_woken_and_answers(worker, host, client, namespace):
    runner = await host()
    actor = await run_db(make_actor, namespace)
    answer = await client.get(f"/gateway/{actor.pk}/x%2Fy/?q=%20&q=2")
    assert answer.status_code == 200
    assert answer.json()["path"] == "/x%2Fy/?q=%20&q=2"
    assert answer.json()["generation"] == 0
    assert runner.started == [(actor.pk, 0)]


async def test_one_that_is_awake_is_asked_at_once(worker, host, client, namespace, held):
    runner = await host()
    actor_id = await running_actor(namespace)
    for _ in range(3):
        answer = await client.post(f"/gateway/{actor_id}", content=b"body")
        assert (answer.status_code, answer.json()["body_bytes"]) == (200, 4)
    assert runner.started == [(actor_id, 0)]
    assert held() == NOTHING


async def test_twenty_requests_to_a_sleeping_actor_wake_it_once(worker, host, client, namespace, held):
    runner = await host()
    actor = await run_db(make_actor, namespace)
    answers = await asyncio.gather(*(client.get(f"/gateway/{actor.pk}/{number}") for number in range(20)))
    assert [answer.json()["path"] for answer in answers] == [f"/{number}" for number in range(20)]
    assert runner.started == [(actor.pk, 0)]
    assert len([message for message in runner.received if isinstance(message, ToClientCommands)]) == 1
    assert held() == NOTHING


async def test_a_wake_is_noted_once_with_the_request_it_is_for(worker, host, client, namespace):
    await host()
    actor = await run_db(make_actor, namespace, generation=4)  # it has lived before
    await client.get(f"/gateway/{actor.pk}/hello")
    noted = TimelineEntry.objects.filter(actor_id=actor.pk, target="Gateway", source="User")
    assert await eventually(lambda: run_db(lambda: list(noted.values_list("label", flat=True)))) == ["GET /hello"]
    wakes = TimelineEntry.objects.filter(actor_id=actor.pk, label__startswith="wake")
    assert await run_db(lambda: list(wakes.values_list("label", flat=True))) == ["wake"]


async def test_the_headers_go_there_and_back(worker, host, client, namespace):
    async def answer(request):
        assert request.start.headers["x-rivet-ray-id"]
        await request.answer(
            b"hi", 201, {"x-answer": request.start.headers["x-question"], "X-Rivet-Ray-Id": "theirs"}
        )

    await host(answer=answer)
    actor_id = await running_actor(namespace)
    headers = [("X-Question", "a"), ("x-question", "b"), ("origin", "http://page.example")]
    answer = await client.get(f"/gateway/{actor_id}", headers=headers)
    assert (answer.status_code, answer.content) == (201, b"hi")
    assert answer.headers["x-answer"] == "a, b"
    assert len(answer.headers["x-rivet-ray-id"]) == 30
    assert answer.headers["access-control-allow-origin"] == "http://page.example"
    assert answer.headers["access-control-expose-headers"] == "*"
    assert answer.headers["vary"] == "Origin"
    assert "x-rivet-error" not in answer.headers


async def test_an_actor_can_be_named_by_headers(worker, host, client, namespace):
    await host()
    actor_id = await running_actor(namespace)
    named = {"x-rivet-target": "actor", "x-rivet-actor": actor_id}
    answer = await client.get("/request/x?y", headers=named)
    assert answer.json()["path"] == "/request/x?y"
    for path, headers, expected in [
        ("/elsewhere", named, (404, "guard.no_route")),
        ("/request", named | {"x-rivet-target": "moon"}, (404, "guard.no_route")),
        ("/request", {"x-rivet-target": "actor"}, (400, "guard.missing_header")),
    ]:
        assert refusal(await client.get(path, headers=headers)) == expected


@pytest.mark.parametrize("path", ["/gateway", "/gateway/", "/gateway//x", "/gateway/{id}//x", "/gateway%2F{id}"])
async def test_a_path_that_names_no_actor_is_not_found(client, namespace, path):
    actor = await run_db(make_actor, namespace)
    answer = await client.get(path.format(id=actor.pk))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("actor_id", ["0" * 30, "act1", "%00", "%ff", "x" * 2_000, "%2e%2e"])
async def test_an_unknown_actor_is_not_found(client, actor_id):
    assert refusal(await client.get(f"/gateway/{actor_id}")) == (404, "actor.not_found")


async def test_a_destroyed_actor_is_not_found(client, namespace, held):
    actor = await run_db(make_destroyed_actor, namespace)
    for _ in range(2):
        assert refusal(await client.get(f"/gateway/{actor.pk}")) == (404, "actor.not_found")
    assert held() == NOTHING


async def test_a_preflight_is_answered_before_any_actor_is_looked_at(client):
    headers = {"origin": "http://a", "access-control-request-headers": "x-a"}
    for path in (f"/gateway/{new_id()}/x", "/gateway/nobody"):
        answer = await client.options(path, headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-headers"] == "x-a"
        assert answer.headers["access-control-allow-origin"] == "http://a"


async def test_the_answer_to_head_has_a_length_and_no_body(worker, host, client, namespace):
    async def answer(request):
        assert request.start.method == "HEAD"
        await request.answer(None, headers={"content-length": "1234"})

    await host(answer=answer)
    actor_id = await running_actor(namespace)
    answer = await client.head(f"/gateway/{actor_id}")
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "1234", b"")
    answer = await client.head(f"/gateway/{new_id()}")
    assert (answer.status_code, answer.headers["x-rivet-error"], answer.content) == (404, "actor.not_found", b"")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_method_is_passed_on_and_a_get_loses_its_body(worker, host, client, namespace, method):
    await host()
    actor_id = await running_actor(namespace)
    answer = (await client.request(method, f"/gateway/{actor_id}", content=b"x")).json()
    assert (answer["method"], answer["body_bytes"]) == (method, 0 if method == "GET" else 1)


# Bodies


async def test_bodies_up_to_the_limit_go_through_both_ways(worker, host, client, namespace):
    async def answer(request):
        await request.answer(request.start.body)

    await host(answer=answer)
    actor_id = await running_actor(namespace)
    for size in (0, 1, 20 * MIB):
        body = bytes(range(256)) * (size // 256) if size > 1 else b"x" * size
        answer = await client.post(f"/gateway/{actor_id}", content=body)
        assert answer.status_code == 200
        assert answer.content == body


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(worker, host, client, namespace, chunked):
    runner = await host()
    actor_id = await running_actor(namespace)

    async def chunks():
        for _ in range(20):
            yield bytes(MIB)
        yield b"x"

    answer = await client.post(f"/gateway/{actor_id}", content=chunks() if chunked else bytes(20 * MIB + 1))
    assert refusal(answer) == (413, "guard.invalid_request_body")
    assert runner.requests == []


@pytest.mark.parametrize(
    ("status", "headers"), [(99, {}), (101, {}), (999, {}), (200, {"a b": "x"}), (200, {"a": "x\r\nb: y"})]
)
async def test_an_answer_that_is_no_http_is_an_error_of_ours(
    worker, host, client, namespace, held, status, headers
):
    async def answer(request):
        await request.answer(b"", status, headers)

    await host(answer=answer)
    actor_id = await running_actor(namespace)
    assert refusal(await client.get(f"/gateway/{actor_id}")) == (500, "core.internal_error")
    assert held() == NOTHING


# Streams


async def streamed(client, actor_id, requests):
    """Begin a request whose answer is streamed; return the answer, and the request as the runner has it."""
    sending = asyncio.create_task(client.send(client.build_request("GET", f"/gateway/{actor_id}"), stream=True))
    request = await requests.get()
    await request.begin(b"first,", {"content-type": "text/plain"})
    return await sending, request


async def test_a_stream_is_passed_on_chunk_by_chunk(worker, host, client, namespace, held):
    requests = asyncio.Queue()
    await host(answer=requests.put)
    actor_id = await running_actor(namespace)
    answer, request = await streamed(client, actor_id, requests)
    chunks = answer.aiter_raw()
    assert await anext(chunks) == b"first,"
    for part in (b"second,", b"third,", bytes(MIB)):
        await request.chunk(part)
        received = b""
        while len(received) < len(part):
            received += await anext(chunks)
        assert received == part
    await request.chunk(b"last", finish=True)
    assert [chunk async for chunk in chunks] == [b"last"]
    assert "content-length" not in answer.headers
    assert held() == NOTHING


async def test_a_stream_that_breaks_off_is_cut_off_and_never_begun_again(worker, host, client, namespace, held):
    requests = asyncio.Queue()
    runner = await host(answer=requests.put)
    actor_id = await running_actor(namespace)
    for end in ("abort", "stop"):
        answer, request = await streamed(client, actor_id, requests)
        if end == "abort":
            await request.send(ToServerResponseAbort())
        else:
            await runner.say(actor_id, CRASHED)
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
    assert len(runner.requests) == 2
    assert held() == NOTHING


async def test_a_client_that_leaves_a_stream_ends_it_at_the_runner(
    worker, host, client, namespace, held, monkeypatch
):
    monkeypatch.setattr(client_side, "PATIENCE_SECONDS", 60)  # it is looked after although the answer never pauses
    requests = asyncio.Queue()
    runner = await host(answer=requests.put)
    actor_id = await running_actor(namespace)
    answer, request = await streamed(client, actor_id, requests)
    flood = asyncio.create_task(without_end(request))
    await answer.aclose()
    abort = await runner.take(ToClientTunnelMessage, aborts)
    assert abort.message_id.request_id == request.id.request_id
    flood.cancel()
    assert held() == NOTHING


async def without_end(request):
    while True:
        await request.chunk(bytes(1024))


def aborts(message):
    return isinstance(message.message_kind, ToClientRequestAbort)


# Clients that do not wait


async def test_a_client_that_hangs_up_aborts_its_request_and_leaves_nothing(worker, host, client, namespace, held):
    async def never(request):
        pass

    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    waiting = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    request = await runner.take_request()
    waiting.cancel()
    abort = await runner.take(ToClientTunnelMessage, aborts)
    assert (abort.message_id.request_id, abort.message_id.message_index) == (request.id.request_id, 1)
    await request.answer(b"too late")
    await eventually(lambda: held() == NOTHING)


async def test_clients_that_hang_up_while_the_actor_is_awaited_leave_nothing(client, namespace, held):
    actor = await run_db(make_actor, namespace)  # nobody wakes it
    waiting = [asyncio.create_task(client.get(f"/gateway/{actor.pk}")) for _ in range(5)]
    await eventually(lambda: open_hub() and held()["users"] == 5)
    for request in waiting:
        request.cancel()
    await eventually(lambda: held() == NOTHING)
    assert _wakers == {}


async def test_a_foreign_runner_cannot_answer(worker, host, client, namespace, held):
    async def never(request):
        pass

    owner = await host(key="owner", answer=never)
    actor_id = await running_actor(namespace)
    thief = await host(key="thief")
    waiting = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    request = await owner.take_request()
    stolen = ToServerTunnelMessage(request.id, ToServerResponseStart(200, {}, b"stolen", stream=False))
    await thief.send(stolen)
    await thief.send(ToServerTunnelMessage(request.id, ToServerResponseAbort()))
    await thief.socket.ping()  # read after those
    await request.answer(b"mine")
    assert (await waiting).content == b"mine"


async def test_an_answer_that_never_comes_is_given_up(worker, host, client, namespace, env, held):
    async def never(request):
        pass

    env(gateway_response_start_ms=200)
    runner = await host(answer=never)
    actor_id = await running_actor(namespace)
    answer = await client.get(f"/gateway/{actor_id}")
    assert refusal(answer) == (504, "guard.gateway_response_start_timeout")
    await runner.take(ToClientTunnelMessage, aborts)
    assert len(runner.requests) == 1
    assert held() == NOTHING


async def test_a_request_that_is_under_way_is_answered_before_the_process_sends_its_runners_away(
    worker, host, client, namespace
):
    asked = asyncio.Queue()
    runner = await host(answer=asked.put)
    actor_id = await running_actor(namespace)
    answer = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    request = await asked.get()
    ending = asyncio.create_task(lifespan.run_shutdown())
    await asyncio.sleep(0.1)  # it has begun to end
    await request.answer(b"in time")
    assert (await answer).content == b"in time"
    await ending
    assert await runner.has_closed() == (1011, "ws.going_away")


async def test_a_request_that_takes_too_long_does_not_keep_the_process_from_ending(
    worker, host, client, namespace, monkeypatch
):
    monkeypatch.setattr("gateway.http.FINISH_SECONDS", 0.2)
    asked = asyncio.Queue()
    runner = await host(answer=asked.put)
    actor_id = await running_actor(namespace)
    answer = asyncio.create_task(client.get(f"/gateway/{actor_id}"))
    await asked.get()
    await lifespan.run_shutdown()
    assert await runner.has_closed() == (1011, "ws.going_away")
    answer.cancel()
