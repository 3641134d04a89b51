"""Guarded writes of many rows."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction

from actors.models import STATE_COLUMNS, Actor
from orchestrator.rows import StaleRow, save_guarded
from tests.support.management import make_actor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)

pytestmark = pytest.mark.django_db(transaction=True)


def test_all_the_named_columns_are_written_and_no_others(namespace):
    actors = [make_actor(namespace, name=f"a{n}") for n in range(3)]
    for n, actor in enumerate(actors):
        actor.alarm_at = NOON + timedelta(microseconds=n)
        actor.failure = {"kind": "crashed", "runner_id": None, "message": 'ü "quoted"'}
        actor.alarm_overdue = True
        actor.name = "changed in memory alone"

    save_guarded(actors, STATE_COLUMNS)

    stored = list(Actor.objects.order_by("name"))
    assert [row.name for row in stored] == ["a0", "a1", "a2"]
    assert [row.alarm_at for row in stored] == [NOON + timedelta(microseconds=n) for n in range(3)]
    assert [row.failure for row in stored] == [actors[0].failure] * 3
    assert [row.alarm_overdue for row in stored] == [True] * 3
    assert [row.version for row in stored] == [row.version for row in actors] == [1, 1, 1]


def test_nothing_can_be_set_to_null_and_back(namespace):
    actor = make_actor(namespace, failure={"kind": "crashed"}, alarm_at=NOON)
    actor.failure = actor.alarm_at = None
    save_guarded([actor], ["failure", "alarm_at"])
    assert Actor.objects.filter(pk=actor.pk, failure__isnull=True, alarm_at=None).exists()
    actor.alarm_at = NOON
    save_guarded([actor], ["alarm_at"])
    assert Actor.objects.get(pk=actor.pk).alarm_at == NOON


def test_no_rows_are_no_trouble():
    save_guarded([], STATE_COLUMNS)


def test_a_row_that_somebody_changed_is_refused_and_so_are_those_with_it(namespace):
    fresh, stale = make_actor(namespace, name="fresh"), make_actor(namespace, name="stale")
    save_guarded([Actor.objects.get(pk=stale.pk)], ["alarm_at"])
    fresh.alarm_at = stale.alarm_at = NOON

    with pytest.raises(StaleRow, match="1 of 2 rows"), transaction.atomic():
        save_guarded([fresh, stale], ["alarm_at"])

    assert not Actor.objects.exclude(alarm_at=None).exists()


def test_a_row_that_is_gone_is_refused(namespace):
    actor = make_actor(namespace)
    Actor.objects.all().delete()
    with pytest.raises(StaleRow):
        save_guarded([actor], ["alarm_at"])


def test_of_two_that_read_the_same_row_one_may_write(namespace):
    actor = make_actor(namespace)
    copies = [Actor.objects.get(pk=actor.pk) for _ in range(4)]
    refused = []

    def write(copy: Actor) -> None:
        try:
            with transaction.atomic():
                save_guarded([copy], ["alarm_at"])
        except StaleRow:
            refused.append(copy)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=write, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(refused) == 3
    assert Actor.objects.get(pk=actor.pk).version == 1
