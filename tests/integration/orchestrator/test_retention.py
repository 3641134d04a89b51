"""What is over is forgotten after as many days as are configured, and nothing else is."""

from datetime import timedelta

import pytest
from django.utils import timezone

from orchestrator import retention
from orchestrator.arrows import Arrow, Participant
from orchestrator.celery import app
from orchestrator.models import AuditEntry, TimelineEntry
from orchestrator.redis import get_redis
from orchestrator.timeline import record
from runners.models import Command, Runner, RunnerConfig, ServerlessConnection
from tests.support.management import make_pool, make_runner

pytestmark = pytest.mark.django_db(transaction=True)

DAY = timedelta(days=1)
QUEUE = app.conf.broker_transport_options["global_keyprefix"] + app.conf.task_default_queue


def add_arrow(namespace, at):
    record([Arrow(Participant.ACTOR, Participant.ACTOR, "an arrow", actor_id="a")], at)


def add_audit_row(namespace, at):
    row = AuditEntry.objects.create(user="root", action="wake", model="actor", target="a")
    AuditEntry.objects.filter(pk=row.pk).update(at=at)


def add_start_request(namespace, at):
    pool = RunnerConfig.objects.first() or make_pool(namespace)
    ServerlessConnection.objects.create(pool=pool, state="ended", endpoint_epoch=0, ended_at=at)


def add_stopped_runner(namespace, at, **columns):
    stopped = {"state": "stopped", "stop_at": at, "due_at": None, "holds_key": False}
    return make_runner(namespace, f"of {at}", **stopped | columns)


KINDS = {
    "timeline_days": (add_arrow, TimelineEntry),
    "audit_days": (add_audit_row, AuditEntry),
    "start_requests_days": (add_start_request, ServerlessConnection),
    "runners_days": (add_stopped_runner, Runner),
}


@pytest.mark.parametrize("setting", KINDS)
def test_rows_older_than_configured_are_forgotten_and_no_others(setting, namespace, env):
    add, model = KINDS[setting]
    now = timezone.now()
    for age in (8 * DAY, 6.9 * DAY, 0 * DAY):
        add(namespace, now - age)
    env(**{setting: 0})
    retention.forget_some(now)
    assert model.objects.count() == 3
    env(**{setting: 7})
    retention.forget_some(now)
    assert model.objects.count() == 2
    retention.forget_some(now)
    assert model.objects.count() == 2


def test_what_is_not_over_is_kept_however_old(namespace, env):
    env(start_requests_days=1, runners_days=1)
    long_ago = timezone.now() - 100 * DAY
    make_runner(namespace, "live", due_at=long_ago)
    add_stopped_runner(namespace, long_ago, used_slots=1)
    pool = make_pool(namespace)
    ServerlessConnection.objects.create(pool=pool, endpoint_epoch=0)
    retention.forget_some(timezone.now())
    assert (Runner.objects.count(), ServerlessConnection.objects.count()) == (2, 1)


def test_with_a_runner_go_its_last_commands(namespace):
    long_ago = timezone.now() - 100 * DAY
    runner = add_stopped_runner(namespace, long_ago)
    command = {"seq": 1, "actor_id": "a", "generation": 0, "index": 0, "kind": "stop", "frame": b""}
    Command.objects.create(runner=runner, created_at=long_ago, **command)
    retention.forget_some(timezone.now())
    assert (Runner.objects.count(), Command.objects.count()) == (0, 0)


def test_many_rows_are_forgotten_by_a_chain_of_tasks_of_which_one_begins_a_minute(namespace):
    record_old = [Arrow(Participant.ACTOR, Participant.ACTOR, "old")] * (2 * retention.BATCH + 1)
    record(record_old, timezone.now() - 100 * DAY)
    redis = get_redis()
    retention.begin()
    retention.begin()
    assert redis.llen(QUEUE) == 1
    left = []
    while redis.lpop(QUEUE):
        retention.forget()
        left.append(TimelineEntry.objects.count())
    assert left == [retention.BATCH + 1, 1, 0]
    retention.begin()
    assert redis.llen(QUEUE) == 0
