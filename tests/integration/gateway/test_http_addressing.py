"""Actors addressed by what they are, and requests that do not wait for them (PROTOCOL §8.1, §8.3)."""

import asyncio
import base64

import cbor2
import pytest

from actors.models import Actor
from actors.services import destroy_actor
from orchestrator.db import run_db
from orchestrator.models import Namespace
from runners.models import RunnerConfig
from tests.support.gateway import NOTHING, refusal
from tests.support.live import actor_row, running_actor
from tests.support.management import make_actor

pytestmark = pytest.mark.django_db(transaction=True)

GET = {"rvt-namespace": "default", "rvt-method": "get"}
CREATE = {"rvt-namespace": "default", "rvt-method": "getOrCreate", "rvt-pool": "pool"}


async def test_an_actor_is_found_by_name_and_key_and_sees_neither(worker, host, client, namespace, held):
    await host()
    actor_id = await running_actor(namespace, name="my chat", key="a/b")
    asked = "/gateway/my%20chat/x%2Fy?b=%20&rvt-namespace=default&rvt-method=get&rvt-key=a,b&a=+"
    answer = (await client.get(asked)).json()
    assert (answer["actor"], answer["path"]) == (actor_id, "/x%2Fy?b=%20&a=+")
    assert held() == NOTHING


async def test_one_that_is_not_there_is_not_found(client, namespace):
    await run_db(make_actor, namespace, name="chat", key="other")
    assert refusal(await client.get("/gateway/chat", params=GET)) == (404, "actor.not_found")
    elsewhere = GET | {"rvt-namespace": "nowhere"}
    assert refusal(await client.get("/gateway/chat", params=elsewhere)) == (400, "namespace.not_found")


async def test_namespaces_are_apart(client, namespace):
    other = await run_db(Namespace.objects.create, name="other", display_name="Other")
    await run_db(make_actor, other, name="chat", key="/")
    assert refusal(await client.get("/gateway/chat", params=GET)) == (404, "actor.not_found")


async def test_many_who_ask_for_one_that_is_not_there_make_it_once(worker, host, client, namespace, held):
    runner = await host()
    content = cbor2.dumps({"a": 1})
    asked = CREATE | {
        "rvt-key": "k",
        "rvt-input": base64.urlsafe_b64encode(content).decode().rstrip("="),
        "rvt-crash-policy": "destroy",
    }
    answers = await asyncio.gather(*(client.get("/gateway/chat/x", params=asked) for _ in range(10)))
    assert len({answer.json()["actor"] for answer in answers}) == 1
    actor = await actor_row(answers[0].json()["actor"])
    assert (actor.name, actor.key, actor.crash_policy) == ("chat", "k", "destroy")
    assert bytes(actor.input) == content
    assert runner.started == [(actor.pk, 0)]
    assert held() == NOTHING


async def test_finding_one_that_is_awake_again_costs_nothing(worker, host, client, namespace):
    await host()
    actor_id = await running_actor(namespace, name="chat", key="/")
    for _ in range(2):  # the first request of a process makes its hub, and remembers nothing
        assert (await client.get("/gateway/chat", params=GET)).json()["actor"] == actor_id
    row = Actor.objects.filter(pk=actor_id)
    await run_db(row.update, key="moved")  # nobody looks
    assert (await client.get("/gateway/chat", params=GET)).json()["actor"] == actor_id
    await run_db(row.update, key="/")
    await run_db(destroy_actor, actor=await actor_row(actor_id))
    assert refusal(await client.get("/gateway/chat", params=GET)) == (404, "actor.not_found")
    answer = await client.get("/gateway/chat", params=CREATE)
    assert answer.json()["actor"] not in (actor_id, None)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"rvt-pool": "nowhere"}, (400, "actor.no_runner_config_configured")),
        ({"rvt-region": "moon"}, (400, "datacenter.not_found")),
        ({"rvt-key": "k" * 1025}, (400, "actor.key_too_large")),
        ({"rvt-input": "_w"}, (400, "guard.query_invalid_cbor_input")),
    ],
)
async def test_one_that_cannot_be_made_is_refused_with_the_reason(client, namespace, changed, expected):
    await run_db(RunnerConfig.objects.create, namespace=namespace, name="pool", kind="normal")
    assert refusal(await client.get("/gateway/chat", params=CREATE | changed)) == expected
    assert await run_db(Actor.objects.count) == 0


async def test_the_empty_name_and_other_mistakes_are_named(client, namespace):
    assert refusal(await client.get("/gateway/?rvt-method=get")) == (400, "guard.query_empty_actor_name")
    assert refusal(await client.get("/gateway/a@t?rvt-method=get")) == (400, "guard.query_path_token_syntax")
    answer = await client.get("/gateway/a?rvt-key=1&rvt-key=2", headers={"origin": "http://page"})
    assert refusal(answer) == (400, "guard.query_duplicate_param")
    assert answer.json()["metadata"] == {"name": "rvt-key"}
    assert answer.headers["access-control-allow-origin"] == "http://page"
    answer = await client.get("/gateway/a", headers={"x-rivet-skip-ready-wait": "perhaps"})
    assert refusal(answer) == (400, "guard.invalid_header")


async def test_who_does_not_wait_reaches_the_runner_before_the_actor_is_ready(
    worker, host, client, namespace, env, held
):
    env(gateway_repeat_wake_ms=100)
    runner = await host(obeys=False)
    actor = await run_db(make_actor, namespace)
    patient = asyncio.create_task(client.get(f"/gateway/{actor.pk}/patient"))
    await runner.take_command()  # it is starting, and does not say that it runs
    answers = [
        asyncio.create_task(client.get(f"/gateway/{actor.pk}/1", headers={"x-rivet-skip-ready-wait": "true"})),
        asyncio.create_task(client.get(f"/gateway/{actor.pk}/2?rvt-skip-ready-wait=1")),
    ]
    for _ in answers:
        await (await runner.take_request()).answer(b"early")
    assert [(await answer).content for answer in answers] == [b"early", b"early"]
    assert not patient.done()
    patient.cancel()
    await asyncio.wait([patient])
