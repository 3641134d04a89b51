"""Many clients that want the same key at the same time: one actor, and everybody learns which (I10)."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections

from actors.models import Actor
from tests.support.management import Management, make_pool
from tests.support.workers import working

CALLERS = 8
BODY = {"name": "counter", "key": "k", "runner_name_selector": "pool", "crash_policy": "sleep"}

pytestmark = pytest.mark.django_db(transaction=True)


def _at_once(method, path, bodies):
    """Send all requests from threads of their own and return the answers."""

    def call(body):
        try:
            return Management().send(method, path, body)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(call, bodies))


def test_one_creation_wins_and_every_loser_is_told_by_whom(namespace):
    make_pool(namespace)
    for round_ in range(5):
        answers = _at_once("POST", "/actors", [BODY | {"key": f"k{round_}"}] * CALLERS)
        [won] = [answer for answer in answers if answer.status == 200]
        lost = [answer for answer in answers if answer.status != 200]
        winner = {"existing_actor_id": won.json["actor"]["actor_id"], "key": f"k{round_}"}
        assert [answer.refused for answer in lost] == [(400, "actor.duplicate_key")] * (CALLERS - 1)
        assert [answer.json["metadata"] for answer in lost] == [winner] * (CALLERS - 1)


def test_get_or_create_gives_everybody_the_same_actor_and_one_has_made_it(namespace):
    make_pool(namespace)
    for round_ in range(5):
        answers = _at_once("PUT", "/actors", [BODY | {"key": f"k{round_}"}] * CALLERS)
        assert [answer.status for answer in answers] == [200] * CALLERS
        assert len({answer.json["actor"]["actor_id"] for answer in answers}) == 1
        assert sum(answer.json["created"] for answer in answers) == 1


def test_many_may_destroy_one_actor(namespace):
    make_pool(namespace)
    actor_id = Management().ok("POST", "/actors", BODY)["actor"]["actor_id"]
    with working():
        answers = _at_once("DELETE", f"/actors/{actor_id}", [None] * CALLERS)
    assert [answer.status for answer in answers] == [200] * CALLERS
    assert Actor.objects.get(pk=actor_id).destroyed_at is not None
