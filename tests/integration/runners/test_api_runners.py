"""Runners over HTTP (API §5)."""

from datetime import timedelta

import pytest

from orchestrator.models import Namespace
from orchestrator.moments import to_ms
from tests.support.management import NOON, Management, make_runner

UNKNOWN_ID = "0" * 30
STOPPED = {"state": "stopped", "stop_at": NOON + timedelta(hours=1), "due_at": None, "holds_key": False}

pytestmark = pytest.mark.django_db


@pytest.fixture
def other():
    return Namespace.objects.create(name="other", display_name="Other")


def _keys(page):
    return [runner["key"] for runner in page["runners"]]


def test_a_runner_is_shown_whole(api, namespace):
    drain_at = NOON + timedelta(minutes=5)
    details = {"used_slots": 3, "metadata": {"a": [1]}, "state": "draining", "drain_at": drain_at}
    runner = make_runner(namespace, "r1", runner_version=7, last_rtt_ms=12, **details)
    [shown] = api.ok("GET", "/runners")["runners"]
    assert shown == {
        "runner_id": runner.pk,
        "namespace_id": namespace.pk,
        "datacenter": "default",
        "name": "pool",
        "key": "r1",
        "version": 7,
        "total_slots": 4,
        "remaining_slots": 1,
        "create_ts": to_ms(NOON),
        "drain_ts": to_ms(drain_at),
        "stop_ts": None,
        "last_connected_ts": to_ms(NOON),
        "last_ping_ts": to_ms(NOON),
        "last_rtt": 12,
        "metadata": {"a": [1]},
    }


def test_runners_are_found_by_pool_and_by_id(api, namespace, other):
    old = make_runner(namespace, "old", minutes=1)
    make_runner(namespace, "new", minutes=2)
    make_runner(namespace, "elsewhere", minutes=3, name="another pool")
    stopped = make_runner(namespace, "stopped", minutes=4, **STOPPED)
    foreign = make_runner(other, "foreign")
    for query, keys in [
        ([], ["elsewhere", "new", "old"]),
        ([("name", "pool")], ["new", "old"]),
        ([("name", "unknown")], []),
        ([("include_stopped", "true")], ["stopped", "elsewhere", "new", "old"]),
        ([("include_stopped", "true"), ("name", "pool")], ["stopped", "new", "old"]),
        ([("runner_id", stopped.pk), ("runner_ids", f"{old.pk}, {UNKNOWN_ID}")], ["stopped", "old"]),
        ([("runner_id", old.pk.upper()), ("name", "unknown")], ["old"]),
        ([("runner_id", foreign.pk)], []),
        ([("limit", "0")], []),
    ]:
        assert _keys(api.ok("GET", "/runners", query=query)) == keys, query
    assert api.ok("GET", "/runners", query={"runner_id": stopped.pk})["runners"][0]["stop_ts"] is not None
    assert _keys(Management("other").ok("GET", "/runners")) == ["foreign"]


@pytest.mark.parametrize("query", [{"runner_id": "zzz"}, {"runner_id": ""}, {"runner_ids": f"{UNKNOWN_ID},zzz"}])
def test_an_unreadable_id_is_a_bad_request(api, query):
    assert api.send("GET", "/runners", query=query).refused == (400, "api.bad_request")


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_pages_lose_and_repeat_nothing_within_one_moment(api, namespace, limit):
    runners = [make_runner(namespace, f"r{index}", minutes=index % 2) for index in range(6)]
    expected = sorted(runners, key=lambda runner: (runner.created_at, runner.pk), reverse=True)
    seen, cursor = [], ""
    while keys := _keys(page := api.ok("GET", "/runners", query={"limit": limit, "cursor": cursor})):
        seen += keys
        cursor = page["pagination"]["cursor"]
    assert seen == [runner.key for runner in expected]
    assert page["pagination"] == {"cursor": None}


def test_names_are_those_of_every_runner_that_ever_connected(api, namespace, other):
    for index, name in enumerate(["b", "a", "B", "ä", "a"]):
        make_runner(namespace, f"r{index}", name=name)
    make_runner(namespace, "gone", name="c", **STOPPED)
    make_runner(other, "foreign", name="foreign")
    assert api.ok("GET", "/runners/names") == {"names": ["B", "a", "b", "c", "ä"], "pagination": {"cursor": "ä"}}
    page = api.ok("GET", "/runners/names", query={"cursor": "a", "limit": "2"})
    assert page == {"names": ["b", "c"], "pagination": {"cursor": "c"}}
    assert api.ok("GET", "/runners/names", query={"cursor": "ä"}) == {"names": [], "pagination": {"cursor": None}}


def test_there_are_no_envoys(api):
    query = [("name", "n"), ("envoy_key", "a"), ("envoy_key", "b"), ("limit", "1"), ("cursor", "1")]
    assert api.ok("GET", "/envoys", query=query) == {"envoys": [], "pagination": {"cursor": None}}
