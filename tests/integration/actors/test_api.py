"""One actor over HTTP: made, found by its key, put to sleep, destroyed (API §3)."""

import base64
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from actors import services
from actors.models import Actor
from orchestrator.models import Namespace
from orchestrator.moments import to_ms
from orchestrator.redis import get_redis
from runners.models import ActorName
from tests.support.api import wait_until
from tests.support.management import Management, make_actor, make_destroyed_actor, make_pool, signals
from tests.support.workers import working

UNKNOWN_ID = "0" * 30
BODY = {"name": "counter", "runner_name_selector": "pool", "crash_policy": "sleep"}
MIB = 1_048_576

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pool(namespace):
    return make_pool(namespace)


class TestCreate:
    def test_a_new_actor_is_shown_whole_and_started(self, api, namespace, pool):
        before = to_ms(timezone.now())
        body = BODY | {"key": "k", "input": base64.b64encode(b"in").decode(), "datacenter": "default"}
        shown = api.ok("POST", "/actors", body)["actor"]
        assert before <= shown.pop("create_ts") <= to_ms(timezone.now())
        actor_id = shown.pop("actor_id")
        assert shown == {
            "name": "counter",
            "key": "k",
            "namespace_id": namespace.pk,
            "datacenter": "default",
            "runner_name_selector": "pool",
            "crash_policy": "sleep",
            "start_ts": None,
            "connectable_ts": None,
            "sleep_ts": None,
            "pending_allocation_ts": None,
            "reschedule_ts": None,
            "destroy_ts": None,
        }
        row = Actor.objects.get(pk=actor_id)
        assert (bytes(row.input), row.status, row.generation) == (b"in", "created", -1)
        assert row.due_at <= timezone.now()
        assert signals("actors", actor_id) == [{"t": "start"}]
        assert ActorName.objects.filter(namespace=namespace, name="counter").exists()

    @pytest.mark.parametrize("policy", ["sleep", "restart", "destroy"])
    def test_every_crash_policy_is_kept(self, api, pool, policy):
        assert api.ok("POST", "/actors", BODY | {"crash_policy": policy})["actor"]["crash_policy"] == policy

    @pytest.mark.parametrize("body", [BODY, BODY | {"key": None, "input": None, "datacenter": None}])
    def test_without_a_key_there_may_be_many(self, api, pool, body):
        ids = {api.ok("POST", "/actors", body)["actor"]["actor_id"] for _ in range(3)}
        assert len(ids) == 3

    @pytest.mark.parametrize("name", ["", "a b/c", "名前", "x" * 1024])
    def test_names_are_any_text(self, api, pool, name):
        assert api.ok("POST", "/actors", BODY | {"name": name})["actor"]["name"] == name

    @pytest.mark.parametrize(
        ("change", "code", "metadata"),
        [
            ({"datacenter": "mars"}, "datacenter.not_found", None),
            ({"datacenter": ""}, "datacenter.not_found", None),
            (
                {"runner_name_selector": "none", "key": ""},
                "actor.no_runner_config_configured",
                {"namespace": "default", "pool_name": "none"},
            ),
            ({"key": "", "input": "?"}, "actor.empty_key", None),
            ({"key": "k" * 1025}, "actor.key_too_large", {"max_size": 1024, "key_preview": "k" * 1024}),
            (
                {"key": "k" + "ä" * 600},
                "actor.key_too_large",
                {"max_size": 1024, "key_preview": "k" + "ä" * 511},
            ),
            ({"key": "taken", "input": "A" * 1_398_104}, "actor.input_too_large", {"max_size": MIB}),
            ({"input": "?" * 1_398_105}, "actor.input_too_large", {"max_size": MIB}),
        ],
    )
    def test_what_cannot_be_made_is_refused_in_order(self, api, namespace, pool, change, code, metadata):
        make_actor(namespace, key="taken")
        answer = api.send("POST", "/actors", BODY | change)
        assert answer.refused == (400, code)
        assert answer.json.get("metadata") == metadata
        assert Actor.objects.count() == 1

    @pytest.mark.parametrize("text", ["?", "QQ", "QQ=", "Q===", "_-==", "QQ==\n", " QQ==", "QQ==QQ==", "ä"])
    def test_input_that_is_not_base64_is_a_bad_request(self, api, pool, text):
        assert api.send("POST", "/actors", BODY | {"input": text}).refused == (400, "api.bad_request")

    @pytest.mark.parametrize("size", [0, 1, 2, MIB])
    def test_input_up_to_a_mebibyte_is_kept(self, api, pool, size):
        text = base64.b64encode(bytes(size)).decode()
        actor_id = api.ok("POST", "/actors", BODY | {"input": text})["actor"]["actor_id"]
        assert bytes(Actor.objects.get(pk=actor_id).input) == bytes(size)

    def test_a_name_has_a_limit(self, api, pool):
        assert api.send("POST", "/actors", BODY | {"name": "ä" * 513}).refused == (400, "api.bad_request")

    def test_a_living_actor_keeps_its_key_to_itself(self, api, namespace, pool):
        holder = make_actor(namespace, key="k")
        answer = api.send("POST", "/actors", BODY | {"key": "k"})
        assert answer.refused == (400, "actor.duplicate_key")
        assert answer.json["metadata"] == {"existing_actor_id": holder.pk, "key": "k"}

    def test_the_same_key_is_free_under_another_name_in_another_namespace_and_after_the_end(
        self, api, namespace, pool
    ):
        make_actor(namespace, key="k")
        other = Namespace.objects.create(name="other", display_name="Other")
        make_pool(other)
        make_destroyed_actor(namespace, name="ended", key="k")
        api.ok("POST", "/actors", BODY | {"key": "k", "name": "another"})
        api.ok("POST", "/actors", BODY | {"key": "k", "name": "ended"})
        Management("other").ok("POST", "/actors", BODY | {"key": "k"})

    def test_the_pool_must_be_of_the_namespace_and_not_removed(self, api, pool):
        Namespace.objects.create(name="other", display_name="Other")
        answer = Management("other").send("POST", "/actors", BODY)
        assert answer.refused == (400, "actor.no_runner_config_configured")
        pool.deleted_at = timezone.now()
        pool.save()
        assert api.send("POST", "/actors", BODY).code == "actor.no_runner_config_configured"


class TestGetOrCreate:
    def test_the_first_call_creates_and_the_next_ones_find(self, api, pool):
        body = BODY | {"key": "k"}
        first, second = api.ok("PUT", "/actors", body), api.ok("PUT", "/actors", body)
        assert (first["created"], second["created"]) == (True, False)
        assert first["actor"] == second["actor"]
        assert signals("actors", first["actor"]["actor_id"]) == [{"t": "start"}]

    def test_an_existing_actor_is_returned_as_it_is(self, api, namespace):
        holder = make_actor(namespace, key="k", pool_name="removed", failure=_failure("crashed", message="ouch"))
        body = BODY | {"key": "k", "input": "?", "crash_policy": "destroy", "runner_name_selector": "any"}
        found = api.ok("PUT", "/actors", body)
        assert (found["actor"]["actor_id"], found["created"]) == (holder.pk, False)
        assert (found["actor"]["crash_policy"], found["actor"]["runner_name_selector"]) == ("sleep", "removed")
        assert found["actor"]["error"] == {"crashed": {"message": "ouch"}}
        assert signals("actors", holder.pk) == []

    @pytest.mark.parametrize("key", [None, 1])
    def test_the_key_is_required(self, api, pool, key):
        assert api.send("PUT", "/actors", BODY | {"key": key}).refused == (400, "api.bad_request")
        assert api.send("PUT", "/actors", BODY).refused == (400, "api.bad_request")

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"datacenter": "mars"}, "datacenter.not_found"),
            ({"runner_name_selector": "none"}, "actor.no_runner_config_configured"),
            ({"key": ""}, "actor.empty_key"),
            ({"key": "k" * 1025}, "actor.key_too_large"),
            ({"input": "A" * 1_398_104}, "actor.input_too_large"),
            ({"input": "?"}, "api.bad_request"),
        ],
    )
    def test_what_cannot_be_made_is_refused(self, api, pool, change, code):
        assert api.send("PUT", "/actors", BODY | {"key": "k"} | change).refused == (400, code)


class TestShown:
    @pytest.mark.parametrize(
        ("failure", "error"),
        [
            ({"kind": "no_capacity"}, "no_capacity"),
            ({"kind": "internal_error"}, "internal_error"),
            ({"kind": "crashed"}, {"crashed": {"message": None}}),
            ({"kind": "crashed", "message": "m"}, {"crashed": {"message": "m"}}),
            ({"kind": "runner_no_response", "runner_id": "r"}, {"runner_no_response": {"runner_id": "r"}}),
            ({"kind": "runner_connection_lost", "runner_id": "r"}, {"runner_connection_lost": {"runner_id": "r"}}),
            (
                {"kind": "runner_draining_timeout", "runner_id": "r"},
                {"runner_draining_timeout": {"runner_id": "r"}},
            ),
        ],
    )
    def test_an_error_has_the_form_of_its_kind(self, api, namespace, failure, error):
        actor = make_actor(namespace, failure=_failure(**failure))
        assert _read(api, actor)["error"] == error

    def test_a_failing_pool_is_told_in_place_of_a_lack_of_capacity(self, api, namespace):
        told = {"serverless_http_error": {"status_code": 500, "body": "no"}}
        make_pool(namespace, error=told)
        waiting = make_actor(namespace, failure=_failure("no_capacity"))
        crashed = make_actor(namespace, failure=_failure("crashed"))
        elsewhere = make_actor(namespace, failure=_failure("no_capacity"), pool_name="other")
        assert _read(api, waiting)["error"] == {"runner_pool_error": told}
        assert _read(api, crashed)["error"] == {"crashed": {"message": None}}
        assert _read(api, elsewhere)["error"] == "no_capacity"

    def test_the_end_of_a_backoff_is_told_and_other_deadlines_are_not(self, api, namespace):
        due = timezone.now()
        backing_off = make_actor(namespace, status="backoff", cause="restart", state_due_at=due, due_at=due)
        pending = make_actor(
            namespace, status="pending", cause="restart", pending_at=due, state_due_at=due, due_at=due
        )
        assert _read(api, backing_off)["reschedule_ts"] == to_ms(due)
        shown = _read(api, pending)
        assert (shown["reschedule_ts"], shown["pending_allocation_ts"]) == (None, to_ms(due))

    def test_a_running_actor_is_connectable(self, api, namespace):
        now = timezone.now()
        times = {"started_at": now, "connectable_at": now, "due_at": now, "state_due_at": now}
        shown = _read(api, make_actor(namespace, status="running", runner_id="r" * 30, **times))
        assert (shown["start_ts"], shown["connectable_ts"]) == (to_ms(now), to_ms(now))
        assert (shown["sleep_ts"], shown["destroy_ts"]) == (None, None)


class TestSleepAndReschedule:
    @pytest.mark.parametrize("what", ["sleep", "reschedule"])
    def test_the_actor_is_told_whatever_it_does(self, api, namespace, what):
        for actor in (make_actor(namespace), make_destroyed_actor(namespace)):
            assert api.ok("POST", f"/actors/{actor.pk}/{what}", {}) == {}
            assert signals("actors", actor.pk) == [{"t": what}]

    @pytest.mark.parametrize("what", ["sleep", "reschedule"])
    def test_an_actor_of_nobody_or_of_another_namespace_is_not_found(self, api, namespace, what):
        actor = make_actor(Namespace.objects.create(name="other", display_name="Other"))
        for actor_id in (UNKNOWN_ID, actor.pk):
            answer = api.send("POST", f"/actors/{actor_id}/{what}", {})
            assert answer.refused == (400, "actor.not_found")
        assert signals("actors", actor.pk) == []

    @pytest.mark.parametrize("what", ["sleep", "reschedule"])
    @pytest.mark.parametrize("raw", [b"", b'{"a": 1}'])
    def test_the_empty_object_must_be_sent(self, api, namespace, what, raw):
        answer = api.send("POST", f"/actors/{make_actor(namespace).pk}/{what}", raw=raw)
        assert answer.refused == (400, "api.bad_request")


class TestDelete:
    def test_it_is_destroyed_when_the_answer_comes(self, api, namespace, pool):
        actor_id = api.ok("POST", "/actors", BODY | {"key": "k"})["actor"]["actor_id"]
        with working():
            assert api.ok("DELETE", f"/actors/{actor_id}") == {}
            assert _read(api, Actor(pk=actor_id))["destroy_ts"] is not None
            assert api.ok("GET", "/actors", query={"name": "counter"})["actors"] == []
            assert api.ok("DELETE", f"/actors/{actor_id}") == {}
            assert api.ok("PUT", "/actors", BODY | {"key": "k"})["created"]

    def test_the_times_of_its_last_state_stay(self, api, namespace):
        actor = make_actor(namespace)
        due = timezone.now() + timedelta(hours=1)
        paused = make_actor(namespace, status="backoff", cause="restart", state_due_at=due, due_at=due)
        with working():
            for one in (actor, paused):
                api.ok("DELETE", f"/actors/{one.pk}")
        assert _read(api, actor)["sleep_ts"] == to_ms(actor.slept_at)
        assert _read(api, paused)["reschedule_ts"] == to_ms(due)

    def test_a_signal_that_is_lost_is_sent_again(self, api, namespace):
        actor = make_actor(namespace)
        with ThreadPoolExecutor(1) as threads:
            answer = threads.submit(_in_thread, api.ok, "DELETE", f"/actors/{actor.pk}")
            wait_until(lambda: signals("actors", actor.pk) != [], lambda: "the signal is there")
            get_redis().flushall()
            with working():
                assert answer.result() == {}

    def test_without_a_worker_it_is_an_error_in_time(self, api, namespace, monkeypatch):
        monkeypatch.setattr(services, "DESTROY_SECONDS", 0.3)
        answer = api.send("DELETE", f"/actors/{make_actor(namespace).pk}")
        assert answer.refused == (503, "actor.destruction_unconfirmed")

    def test_an_actor_of_nobody_or_of_another_namespace_is_not_found(self, api, namespace):
        other = Namespace.objects.create(name="other", display_name="Other")
        for actor_id in (UNKNOWN_ID, make_actor(other).pk, make_destroyed_actor(other).pk):
            assert api.send("DELETE", f"/actors/{actor_id}").refused == (400, "actor.not_found")


def _in_thread(call, *arguments):
    try:
        return call(*arguments)
    finally:
        connections.close_all()


def _failure(kind, runner_id=None, message=None):
    return {"kind": kind, "runner_id": runner_id, "message": message}


def _read(api, actor):
    [shown] = api.ok("GET", "/actors", query={"actor_id": actor.pk, "include_destroyed": "true"})["actors"]
    return shown
