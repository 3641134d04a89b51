"""Many actors over HTTP: pages, filters, names (API §3.3, §3.8)."""

import random
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from actors.models import Actor
from orchestrator.models import Namespace
from orchestrator.moments import to_ms
from runners.models import ActorName
from tests.support.management import NOON, Management, make_actor, make_destroyed_actor

UNKNOWN_ID = "0" * 30

pytestmark = pytest.mark.django_db


@pytest.fixture
def other():
    return Namespace.objects.create(name="other", display_name="Other")


def _ids(page):
    return [actor["actor_id"] for actor in page["actors"]]


def _make_many(namespace, count):
    """Store so many living actors and as many destroyed ones, each with a moment and a key of its own."""
    fixed = {"namespace": namespace, "name": "counter", "pool_name": "p", "crash_policy": "sleep"}
    living = {"status": "asleep", "slept_at": NOON}
    destroyed = {"status": "destroyed", "destroyed_at": NOON}
    rows = []
    for index in range(count):
        created_at = NOON + timedelta(milliseconds=index)
        rows += [Actor(key=f"k{index}", created_at=created_at, **fixed, **state) for state in (living, destroyed)]
    Actor.objects.bulk_create(rows)


def _plan(sql):
    """Return how the database answers a query."""
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE actors_actor")
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{sql}")
        return " ".join(str(row[-1]) for row in cursor.fetchall())


def _all_pages(api, path, what, **query):
    """Follow the cursors to the empty page and return everything, in order."""
    seen, cursor = [], ""
    for _ in range(100):
        page = api.ok("GET", path, query=query | {"cursor": cursor})
        if not page[what]:
            assert page["pagination"] == {"cursor": None}
            return seen
        seen += page[what]
        cursor = page["pagination"]["cursor"]
    raise AssertionError("the cursor leads in a circle")


class TestByName:
    def test_the_living_are_listed_newest_first(self, api, namespace, other):
        old, new = make_actor(namespace, minutes=0), make_actor(namespace, minutes=1)
        make_destroyed_actor(namespace)
        make_actor(namespace, name="another")
        make_actor(other)
        page = api.ok("GET", "/actors", query={"name": "counter"})
        assert _ids(page) == [new.pk, old.pk]
        assert page["pagination"]["cursor"]

    def test_the_destroyed_are_listed_among_them_if_asked_for(self, api, namespace):
        actors = [
            make(namespace, minutes=minutes)
            for minutes, make in enumerate([make_actor, make_destroyed_actor, make_destroyed_actor, make_actor])
        ]
        page = api.ok("GET", "/actors", query={"name": "counter", "include_destroyed": "true"})
        assert _ids(page) == [actor.pk for actor in reversed(actors)]

    @pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
    def test_pages_lose_and_repeat_nothing_even_within_one_moment(self, api, namespace, limit):
        dice = random.Random(limit)
        makers = [make_actor, make_destroyed_actor]
        actors = [dice.choice(makers)(namespace, minutes=dice.randrange(3) / 60_000) for _ in range(12)]
        expected = sorted(actors, key=lambda actor: (actor.created_at, actor.pk), reverse=True)
        query = {"name": "counter", "limit": limit}
        seen = _all_pages(api, "/actors", "actors", **query, include_destroyed="true")
        assert [actor["actor_id"] for actor in seen] == [actor.pk for actor in expected]
        living = [actor.pk for actor in expected if actor.destroyed_at is None]
        assert [actor["actor_id"] for actor in _all_pages(api, "/actors", "actors", **query)] == living

    def test_a_plain_number_means_strictly_older(self, api, namespace):
        old, new = make_actor(namespace, minutes=0), make_actor(namespace, minutes=1)
        noon = to_ms(NOON)
        for cursor, found in [(noon + 60_001, [new, old]), (noon + 60_000, [old]), (noon, []), (-1, [])]:
            page = api.ok("GET", "/actors", query={"name": "counter", "cursor": cursor})
            assert _ids(page) == [actor.pk for actor in found]

    def test_an_actor_within_the_millisecond_of_a_plain_number_is_not_older(self, api, namespace):
        make_actor(namespace, minutes=0.0005 / 60)  # half a millisecond after noon
        page = api.ok("GET", "/actors", query={"name": "counter", "cursor": to_ms(NOON)})
        assert _ids(page) == []

    def test_a_limit_of_nothing_gives_nothing(self, api, namespace):
        make_actor(namespace, key="k")
        for query in ({}, {"key": "k"}):
            page = api.ok("GET", "/actors", query={"name": "counter", "limit": "0"} | query)
            assert page == {"actors": [], "pagination": {"cursor": None}}

    def test_a_page_has_a_hundred_actors_and_a_thousand_at_the_most(self, api, namespace):
        _make_many(namespace, 1_010)
        for limit, length in [("", 100), ("999", 999), ("1001", 1_000), (str(2**64 - 1), 1_000)]:
            page = api.ok("GET", "/actors", query={"name": "counter", "limit": limit})
            assert len(page["actors"]) == length
        rest = api.ok("GET", "/actors", query={"name": "counter", "cursor": page["pagination"]["cursor"]})
        assert len(rest["actors"]) == 10

    def test_a_list_costs_the_same_few_queries_however_long_it_is(self, api, namespace, django_assert_num_queries):
        failure = {"kind": "no_capacity", "runner_id": None, "message": None}
        for index in range(20):
            make_actor(namespace, pool_name=f"pool-{index}", failure=failure)
        with django_assert_num_queries(3):  # the namespace, the actors, the errors of their pools
            api.ok("GET", "/actors", query={"name": "counter"})

    @pytest.mark.parametrize(
        ("query", "indexes"),
        [
            ({}, ["actor_living"]),
            ({"cursor": "1"}, ["actor_living"]),
            ({"include_destroyed": "true"}, ["actor_living", "actor_destroyed"]),
            ({"key": "k"}, ["actor_one_live_per_key"]),
            ({"key": "k", "include_destroyed": "true"}, ["actor_one_live_per_key", "actor_destroyed_by_key"]),
        ],
    )
    def test_a_list_is_read_from_an_index(self, api, namespace, query, indexes):
        _make_many(namespace, 3_000)
        with CaptureQueriesContext(connection) as captured:
            api.ok("GET", "/actors", query={"name": "counter"} | query)
        reads = [one["sql"] for one in captured if 'FROM "actors_actor"' in one["sql"]]
        assert len(reads) == len(indexes)
        for sql, index in zip(reads, indexes, strict=True):
            assert f"{index} " in f"{_plan(sql)} "


class TestByKey:
    def test_the_living_holder_or_nobody(self, api, namespace):
        make_destroyed_actor(namespace, key="k")
        make_actor(namespace, key="another")
        query = {"name": "counter", "key": "k"}
        assert _ids(api.ok("GET", "/actors", query=query)) == []
        holder = make_actor(namespace, key="k", minutes=1)
        for ignored in ({}, {"cursor": "no cursor"}, {"cursor": "1"}, {"limit": "1"}):
            assert _ids(api.ok("GET", "/actors", query=query | ignored)) == [holder.pk]

    def test_all_that_ever_held_it(self, api, namespace):
        holders = [make_destroyed_actor(namespace, key="k", minutes=minutes) for minutes in range(3)]
        holders.append(make_actor(namespace, key="k", minutes=3))
        make_destroyed_actor(namespace, key="another")
        query = {"name": "counter", "key": "k", "include_destroyed": "true"}
        seen = _all_pages(api, "/actors", "actors", **query, limit=2)
        assert [actor["actor_id"] for actor in seen] == [actor.pk for actor in reversed(holders)]
        assert api.send("GET", "/actors", query=query | {"cursor": "x"}).refused == (400, "api.bad_request")


class TestByIds:
    def test_the_union_of_both_forms_once_each_newest_first(self, api, namespace, other):
        first, second = make_actor(namespace, minutes=1), make_actor(namespace, minutes=2)
        foreign = make_actor(other)
        query = [
            ("actor_id", first.pk),
            ("actor_id", first.pk.upper()),
            ("actor_id", UNKNOWN_ID),
            ("actor_ids", f" {second.pk} ,{first.pk},{foreign.pk},"),
        ]
        assert _ids(api.ok("GET", "/actors", query=query)) == [second.pk, first.pk]
        assert _ids(api.ok("GET", "/actors", query=[*query, ("limit", "1")])) == [second.pk]
        assert _ids(Management("other").ok("GET", "/actors", query=query)) == [foreign.pk]

    def test_a_destroyed_actor_is_listed_only_if_asked_for(self, api, namespace):
        living, destroyed = make_actor(namespace, minutes=1), make_destroyed_actor(namespace, minutes=2)
        for query in (
            [("actor_id", living.pk), ("actor_id", destroyed.pk)],
            [("actor_ids", f"{living.pk},{destroyed.pk}")],
        ):
            assert _ids(api.ok("GET", "/actors", query=query)) == [living.pk]
            assert _ids(api.ok("GET", "/actors", query=[*query, ("include_destroyed", "false")])) == [living.pk]
            both = _ids(api.ok("GET", "/actors", query=[*query, ("include_destroyed", "true")]))
            assert both == [destroyed.pk, living.pk]

    @pytest.mark.parametrize(
        ("query", "code"),
        [
            ([], "validation.invalid_input"),
            ([("key", "k")], "validation.invalid_input"),
            ([("actor_ids", "")], "validation.invalid_input"),
            ([("name", "")], "validation.invalid_input"),
            ([("actor_id", UNKNOWN_ID), ("name", "n")], "validation.invalid_input"),
            ([("actor_ids", UNKNOWN_ID), ("key", "k")], "validation.invalid_input"),
            ([("actor_id", "zzz")], "api.bad_request"),
            ([("actor_id", "")], "api.bad_request"),
            ([("actor_ids", "zzz")], "api.bad_request"),
            ([("actor_ids", f"{UNKNOWN_ID},zzz")], "api.bad_request"),
            ([("actor_id", UNKNOWN_ID), ("cursor", "x")], "api.bad_request"),
        ],
    )
    def test_what_does_not_go_together_is_refused_before_the_namespace_is_looked_up(self, api, query, code):
        assert Management("nobody").send("GET", "/actors", query=query).refused == (400, code)

    def test_an_invalid_input_says_why(self, api):
        told = api.send("GET", "/actors").json
        assert told["metadata"] == {"message": told["message"]}

    def test_thirty_two_at_a_time(self, api):
        half = [("actor_id", UNKNOWN_ID)] * 16
        api.ok("GET", "/actors", query=[*half, ("actor_ids", ",".join([UNKNOWN_ID] * 16))])
        answer = api.send("GET", "/actors", query=[*half, ("actor_ids", ",".join([UNKNOWN_ID] * 17))])
        assert answer.refused == (400, "validation.too_many_actor_ids")
        assert answer.json["metadata"] == {"max": 32, "count": 33}


class TestNames:
    def test_names_come_in_the_order_of_their_bytes_with_what_was_announced(self, api, namespace, other):
        for name in ["b", "a", "B", "ä", "a b", "名", "😀", "\uffff"]:
            ActorName.objects.create(namespace=namespace, name=name)
        ActorName.objects.filter(name="a").update(metadata={"icon": "x"})
        ActorName.objects.create(namespace=other, name="foreign")
        page = api.ok("GET", "/actors/names")
        expected = sorted(["b", "a", "B", "ä", "a b", "名", "😀", "\uffff"], key=str.encode)
        assert list(page["names"]) == expected
        assert page["names"]["a"] == {"metadata": {"icon": "x"}}
        assert page["names"]["b"] == {"metadata": {}}
        assert page["pagination"] == {"cursor": expected[-1]}
        seen, cursor = [], ""
        while page := api.ok("GET", "/actors/names", query={"limit": "3", "cursor": cursor}):
            if not page["names"]:
                break
            seen += page["names"]
            cursor = page["pagination"]["cursor"]
        assert seen == expected
