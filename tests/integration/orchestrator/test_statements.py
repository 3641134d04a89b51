"""Rows read and written by statements of our own: the same as by Django's."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from orchestrator.models import Namespace, TimelineEntry
from orchestrator.rows import StaleRow, save_guarded
from orchestrator.statements import add, insert, lock
from runners.models import Command, Runner, RunnerConfig

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2031, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)


@pytest.fixture
def namespace():
    return Namespace.objects.create(name="rows", display_name="Rows")


@pytest.fixture
def runners(namespace):
    """Three runners, ordered by key."""
    made = [
        Runner.objects.create(
            namespace=namespace,
            name="pool",
            key=f"runner {number}",
            runner_version=2**40,
            total_slots=10,
            used_slots=number,
            metadata={"ünïcode": [number, None]} if number else None,
            protocol_version=7,
            connected_at=NOW,
            last_ping_at=NOW + timedelta(microseconds=number),
            due_at=NOW,
        )
        for number in range(3)
    ]
    return sorted(made, key=lambda runner: runner.pk)


def entry(label, **fields):
    return TimelineEntry(at=NOW, source="User", target="Gateway", label=label, **fields)


def command(runner, seq):
    return Command(
        runner=runner,
        seq=seq,
        actor_id=f"actor {seq}",
        generation=2**33,
        index=0,
        kind=Command.Kind.START,
        frame=bytes(range(256)),
        created_at=NOW,
    )


def columns(row):
    """Return what the row holds, bytes as bytes."""
    values = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return {name: bytes(value) if isinstance(value, memoryview) else value for name, value in values.items()}


def test_locked_rows_are_what_the_orm_reads_in_the_order_of_their_keys(runners):
    with transaction.atomic():
        locked = lock(Runner, [runner.pk for runner in reversed(runners)])
    read = list(Runner.objects.order_by("pk"))
    assert [columns(row) for row in locked] == [columns(row) for row in read]
    assert locked == read


def test_every_kind_of_column_is_converted(namespace, runners):
    RunnerConfig.objects.create(
        namespace=namespace,
        name="pool",
        kind="serverless",
        url="http://localhost",
        headers={"a": "b"},
        request_lifespan=timedelta(seconds=1.5),
    )
    Command.objects.bulk_create([command(runners[0], 1)])
    for model in (RunnerConfig, Command, Namespace):
        with transaction.atomic():
            locked = lock(model, list(model.objects.values_list("pk", flat=True)))
        assert [columns(row) for row in locked] == [columns(row) for row in model.objects.order_by("pk")]


def test_a_locked_row_can_be_saved_as_one_that_was_read(runners):
    with transaction.atomic():
        [row] = lock(Runner, [runners[0].pk])
        row.state = Runner.State.DRAINING
        save_guarded([row], ["state"])
    with transaction.atomic(), pytest.raises(StaleRow):
        save_guarded([runners[0]], ["state"])
    assert Runner.objects.get(pk=row.pk).state == Runner.State.DRAINING


def test_unknown_keys_give_no_rows_and_no_keys_no_query(runners):
    with transaction.atomic():
        assert lock(Runner, ["unknown"]) == []
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert lock(Runner, []) == []
    assert not queries.captured_queries


def test_rows_are_locked_in_order_where_the_database_can(runners):
    with transaction.atomic(), CaptureQueriesContext(connection) as queries:
        lock(Runner, [runners[0].pk])
    [query] = queries.captured_queries
    assert "ORDER BY" in query["sql"]  # two turns that lock the same rows must not wait for each other
    assert ("FOR NO KEY UPDATE" in query["sql"]) == (connection.vendor == "postgresql")


def test_inserted_rows_are_what_was_given(runners):
    insert([command(runners[0], 1), command(runners[0], 2)])
    insert([entry("first", data={"k": ["é", 1]}, via=["Runner WS"]), entry("second", generation=-1)])
    insert([])
    assert [(row.seq, bytes(row.frame), row.created_at) for row in Command.objects.order_by("seq")] == [
        (1, bytes(range(256)), NOW),
        (2, bytes(range(256)), NOW),
    ]
    found = TimelineEntry.objects.order_by("pk").values_list("label", "at", "data", "via", "generation")
    assert list(found) == [("first", NOW, {"k": ["é", 1]}, ["Runner WS"], None), ("second", NOW, {}, [], -1)]


def test_of_rows_that_cannot_all_be_inserted_none_is(runners):
    with pytest.raises(IntegrityError):
        insert([command(runners[0], 1), command(runners[0], 1)])
    assert not Command.objects.exists()


def test_amounts_are_added_to_the_rows_named(runners):
    first, second, third = runners
    add(Runner, ("used_slots", "command_seq"), {second.pk: (2, 5), third.pk: (-1, 0)})
    add(Runner, ("used_slots",), {})
    found = dict(Runner.objects.values_list("pk", "used_slots"))
    assert found == {
        first.pk: first.used_slots,
        second.pk: second.used_slots + 2,
        third.pk: third.used_slots - 1,
    }
    assert Runner.objects.get(pk=second.pk).command_seq == 5
