"""The best answer of every endpoint against the API's own description: made-up requests seldom get that far."""

import base64

import jsonschema_rs
import pytest
from django.utils import timezone

from actors.models import Actor
from orchestrator.workflow import echo
from runners.protocol.messages import KvPutRequest
from tests.support.http_server import Reply, http_server
from tests.support.management import Management, make_destroyed_actor, make_pool, make_runner
from tests.support.storage import Hosted

pytestmark = pytest.mark.django_db(transaction=True)

ACTOR = {"name": "chat", "key": "k", "runner_name_selector": "pool", "crash_policy": "sleep"}
METADATA = {"runtime": "rivetkit", "version": "1", "actorNames": {"chat": {"metadata": {"icon": "x"}}}}
KEY = base64.b64encode(b"key").decode()
FAILED = {"kind": "crashed", "message": "it broke"}


@pytest.fixture
def known(namespace):
    """An actor with all that can be told of one, a destroyed one, a runner and a pool; ids by placeholder."""
    make_pool(namespace)
    hosted = Hosted(namespace)
    hosted.ask(KvPutRequest([b"key"], [b"value"]))
    Actor.objects.filter(pk=hosted.actor.pk).update(failure=FAILED, started_at=timezone.now())
    make_runner(namespace, "another", metadata={"a": 1}, drain_at=timezone.now())
    return {"{actor_id}": hosted.actor.pk, "{key}": KEY, "{gone}": make_destroyed_actor(namespace).pk}


def calls(url, actor_id, gone):
    """What is sent to each endpoint, in this order: query, body, path parameters of its own."""
    serverless = {
        "datacenters": {"default": {"serverless": {"url": url, "request_lifespan": 900}, "metadata": {}}}
    }
    return {
        ("get", "/health"): {},
        ("get", "/metadata"): {},
        ("get", "/health/fanout"): {},
        ("get", "/datacenters"): {},
        ("post", "/namespaces"): {"body": {"name": "other", "display_name": "Other"}},
        ("get", "/namespaces"): {},
        ("post", "/tokens"): {"body": {"name": "ci", "scopes": ["read"], "expires_in": 60}},
        ("get", "/tokens"): {},
        ("delete", "/tokens/{token_id}"): {},
        ("post", "/actors"): {"body": ACTOR},
        ("put", "/actors"): {"body": ACTOR},
        ("get", "/actors"): {"query": [("actor_id", actor_id), ("actor_id", gone), ("include_destroyed", "true")]},
        ("get", "/actors/names"): {},
        ("post", "/actors/{actor_id}/sleep"): {"body": {}},
        ("post", "/actors/{actor_id}/reschedule"): {"body": {}},
        ("get", "/actors/{actor_id}/kv/keys/{key}"): {},
        ("get", "/actors/{actor_id}/explain"): {},
        ("get", "/actors/{actor_id}/timeline"): {},
        ("delete", "/actors/{actor_id}"): {"path": {"{actor_id}": gone}},
        ("get", "/runners"): {},
        ("get", "/runners/names"): {},
        ("get", "/envoys"): {},
        ("put", "/runner-configs/{runner_name}"): {"body": serverless},
        ("get", "/runner-configs"): {},
        ("post", "/runner-configs/{runner_name}/refresh-metadata"): {"body": {}},
        ("post", "/runner-configs/serverless-health-check"): {"body": {"url": url}},
        ("delete", "/runner-configs/{runner_name}"): {},
    }


def test_every_endpoint_answers_as_it_is_described(api, known, redis_url, monkeypatch):
    monkeypatch.setattr(echo, "WAIT_SECONDS", 0)  # no worker runs: the engine is not healthy
    described = api.ok("GET", "/openapi.json", query={"namespace": ""})
    told = {}
    with http_server(Reply(200, METADATA)) as endpoint:
        asked = calls(endpoint.url, known["{actor_id}"], known["{gone}"])
        for (method, path), call in asked.items():
            names = known | {"{runner_name}": "served", "{token_id}": _token(told)} | call.pop("path", {})
            filled = path
            for placeholder, value in names.items():
                filled = filled.replace(placeholder, value)
            scoped = "namespace" in [one["name"] for one in described["paths"][path][method].get("parameters", ())]
            answer = Management("default" if scoped else None).send(method.upper(), filled, **call)
            assert answer.status == (503 if path == "/health" else 200), (method, path, answer)
            _validator(described, method, path, answer.status).validate(answer.json)
            told[method, path] = answer.json
    assert set(told) == {(method, path) for path, methods in described["paths"].items() for method in methods}
    assert len(told["get", "/actors"]["actors"]) == 2
    assert told["get", "/runner-configs"]["runner_configs"].keys() == {"pool", "served"}


def _token(told):
    return told.get(("post", "/tokens"), {}).get("token", {}).get("token_id", "")


def _validator(described, method, path, status):
    """Return what judges the answers of an endpoint; no field may be there that is not described."""
    content = described["paths"][path][method]["responses"][str(status)]["content"]
    schemas = described["components"]["schemas"]
    closed = {name: {"unevaluatedProperties": False} | schema for name, schema in schemas.items()}
    schema = content["application/json"]["schema"] | {"components": {"schemas": closed}}
    return jsonschema_rs.Draft202012Validator(schema)
