"""An actor's row: its columns are its state and back, and the database refuses what cannot be."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given

from actors import life
from actors.lifecycle import Destroyed, due_at
from actors.models import STATE_COLUMNS, Actor
from orchestrator.rows import save_guarded
from tests.support.management import make_actor
from tests.unit.actors.lives import choices, walk

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERYTHING = life.Life(
    life.CrashPolicy.RESTART,
    generation=4,
    failure=life.Failure(life.FailureKind.CRASHED, "runner-1", "boom"),
    retries=3,
    retried_at=NOON,
    started_at=NOON - timedelta(days=1),
    alarm_at=NOON + timedelta(milliseconds=1),
    alarm_spent_at=NOON - timedelta(microseconds=1),
    alarm_overdue=True,
)
STATES = [
    life.Created(EVERYTHING, NOON),
    life.Pending(EVERYTHING, NOON, life.Cause.WAKE, NOON, NOON),
    life.Pending(EVERYTHING, NOON, life.Cause.ALARM, NOON, None),
    life.Backoff(EVERYTHING, life.Cause.RESTART, NOON),
    life.Starting(EVERYTHING, "runner-1", -1, NOON),
    life.Running(EVERYTHING, "runner-1", 7, NOON, NOON),
    life.Stopping(EVERYTHING, "runner-1", 7, NOON, life.StopReason.DRAIN, NOON, wake_after=True),
    life.Stopping(EVERYTHING, "runner-1", 7, None, life.StopReason.SLEEP, NOON, wake_after=False),
    life.Asleep(EVERYTHING, NOON),
    life.Destroyed(EVERYTHING, NOON),
]


@given(choices)
def test_columns_are_the_state_and_back(choices):
    for step in walk(choices):
        actor = Actor(crash_policy=step.after.life.policy.value)
        actor.state = step.after
        assert actor.state == step.after
        assert actor.due_at == due_at(step.after)


@pytest.mark.django_db
@pytest.mark.parametrize("before", [STATES[5], STATES[8]], ids=lambda state: type(state).__name__)
@pytest.mark.parametrize("state", STATES, ids=lambda state: type(state).__name__)
def test_the_database_keeps_every_part_of_a_state_and_nothing_of_the_one_before(namespace, before, state):
    actor = make_actor(namespace, crash_policy="restart")
    for one in (before, state):
        actor.state = one
        save_guarded([actor], STATE_COLUMNS)
    assert Actor.objects.get(pk=actor.pk).state == state


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("columns", "kept", "gone"),
    [
        ({"status": "asleep", "slept_at": NOON}, ["slept_at"], []),
        (
            {"status": "pending", "cause": "wake", "pending_at": NOON, "slept_at": None},
            ["pending_at"],
            ["state_due_at"],
        ),
        ({"status": "backoff", "cause": "restart", "slept_at": None}, ["state_due_at"], []),
        ({"status": "running", "runner_id": "r", "connectable_at": NOON}, [], ["connectable_at", "state_due_at"]),
    ],
    ids=["asleep", "pending", "backoff", "running"],
)
def test_a_destroyed_actor_keeps_its_times_but_is_not_connectable(namespace, columns, kept, gone):
    actor = make_actor(namespace, **{"state_due_at": NOON, "due_at": NOON} | columns)
    ended = Destroyed(actor.state.life, NOON)
    for _ in range(2):  # told twice, it is the same
        actor.state = ended
        actor.save()
        actor.refresh_from_db()
        assert [getattr(actor, name) for name in [*kept, *gone]] == [NOON] * len(kept) + [None] * len(gone)
        assert (actor.destroyed_at, actor.due_at, actor.state) == (NOON, None, ended)


@pytest.mark.django_db
def test_an_unknown_status_is_our_mistake(namespace):
    actor = make_actor(namespace)
    actor.status = "nonsense"
    with pytest.raises(AssertionError, match="unknown status 'nonsense'"):
        _ = actor.state


IMPOSSIBLE = [
    ("actor_unsettled_has_deadline", {"status": "created", "due_at": None}),
    ("actor_unsettled_has_deadline", {"status": "pending", "due_at": None, "slept_at": None}),
    ("actor_unsettled_has_deadline", {"status": "running", "due_at": None, "runner_id": "r"}),
    ("actor_holds_a_slot_or_none", {"status": "starting", "due_at": NOON, "runner_id": ""}),
    ("actor_holds_a_slot_or_none", {"status": "running", "due_at": NOON, "runner_id": ""}),
    ("actor_holds_a_slot_or_none", {"status": "stopping", "due_at": NOON, "runner_id": ""}),
    ("actor_holds_a_slot_or_none", {"status": "asleep", "runner_id": "r"}),
    ("actor_holds_a_slot_or_none", {"status": "pending", "due_at": NOON, "runner_id": "r"}),
    ("actor_holds_a_slot_or_none", {"status": "destroyed", "destroyed_at": NOON, "runner_id": "r"}),
    ("actor_destroyed_has_a_time", {"status": "destroyed", "destroyed_at": None}),
    ("actor_destroyed_has_a_time", {"status": "asleep", "destroyed_at": NOON}),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("constraint", "columns"), IMPOSSIBLE)
def test_the_database_refuses_what_cannot_be(namespace, constraint, columns):
    actor = make_actor(namespace)
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        Actor.objects.filter(pk=actor.pk).update(**columns)


def test_every_check_has_a_case():
    checks = {
        one.name for one in Actor._meta.constraints if hasattr(one, "condition") and not hasattr(one, "fields")
    }
    assert {name for name, _ in IMPOSSIBLE} == checks


@pytest.mark.django_db
def test_a_key_has_one_living_holder(namespace):
    make_actor(namespace, name="n", key="k")
    make_actor(namespace, name="other", key="k")
    make_actor(namespace, name="n", key="another")
    with pytest.raises(IntegrityError), transaction.atomic():
        make_actor(namespace, name="n", key="k")


@pytest.mark.django_db
def test_the_dead_and_the_keyless_may_be_many(namespace):
    for _ in range(2):
        make_actor(namespace, name="n")
        make_actor(namespace, name="n", key="k", status="destroyed", destroyed_at=NOON)
    make_actor(namespace, name="n", key="k")


@pytest.mark.django_db
def test_no_migration_is_missing():
    from django.core.management import call_command

    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_the_state_columns_are_all_that_a_state_sets():
    fixed = {"id", "namespace", "name", "key", "pool_name", "crash_policy", "input", "created_at", "version"}
    assert set(STATE_COLUMNS) == {field.name for field in Actor._meta.fields} - fixed
