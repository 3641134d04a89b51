"""Wakes called together: one query and one round trip for many, and an answer of its own for each."""

import asyncio

import pytest
from django.db import DatabaseError, connection

from actors.models import Actor
from gateway.calling import call_actor
from gateway.looks import Call, look_and_wake
from orchestrator.db import run_db
from orchestrator.ids import new_id
from tests.support.management import NOON, make_actor, signals

pytestmark = pytest.mark.django_db(transaction=True)


def test_many_actors_are_looked_at_in_one_query_and_only_sleepers_are_woken(namespace, django_assert_num_queries):
    sleeper, other = make_actor(namespace).pk, make_actor(namespace).pk
    running = make_actor(namespace, status=Actor.Status.RUNNING, runner_id=new_id(), due_at=NOON).pk
    unknown = new_id()
    with django_assert_num_queries(1, connection=connection):
        looks = look_and_wake(
            [Call(running), Call(sleeper, "GET /"), Call("not an id"), Call(other), Call(unknown)]
        )
    assert [look.exists for look in looks] == [True, True, False, True, False]
    assert [look.connectable for look in looks] == [True, False, False, False, False]
    assert [signals("actors", actor_id) != [] for actor_id in (running, sleeper, other)] == [False, True, True]


async def test_calls_at_the_same_time_each_get_their_own_answer(namespace):
    sleepers = [(await run_db(make_actor, namespace)).pk for _ in range(5)]
    looks = await asyncio.gather(*(call_actor(Call(one)) for one in [*sleepers, new_id()]))
    assert [look.exists for look in looks] == [True] * 5 + [False]
    assert all([await run_db(signals, "actors", one) for one in sleepers])


async def test_a_call_nobody_waits_for_any_more_wakes_nobody(namespace):
    first, second = [(await run_db(make_actor, namespace)).pk for _ in range(2)]
    calls = [asyncio.create_task(call_actor(Call(one))) for one in (first, second)]
    await asyncio.sleep(0)  # both are queued, none is under way
    calls[1].cancel()
    await calls[0]
    assert await run_db(signals, "actors", first)
    assert not await run_db(signals, "actors", second)


async def test_what_keeps_a_round_from_its_end_is_told_to_every_caller_and_the_next_round_goes_on(namespace):
    actor_id = (await run_db(make_actor, namespace)).pk
    await run_db(rename, "actors_actor", "away")
    outcomes = await asyncio.gather(*(call_actor(Call(actor_id)) for _ in range(2)), return_exceptions=True)
    await run_db(rename, "away", "actors_actor")
    assert [isinstance(one, DatabaseError) for one in outcomes] == [True, True]
    assert (await call_actor(Call(actor_id))).exists


def rename(table, name):
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO {name}")
