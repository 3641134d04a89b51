"""The sweep and the timers: what is overdue is signalled, and no mailbox is forgotten."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta

import pytest
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from actors import queue, storage_erasure
from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox, timers
from orchestrator.workflow.sweep import BACKLOG_LIMIT, look_again, sweep
from runners import pool_tasks, tasks
from runners.models import Runner
from tests.support.api import wait_until
from tests.support.child import REPOSITORY
from tests.support.management import make_actor, make_pool, make_runner, signals

pytestmark = pytest.mark.django_db(transaction=True)

SECOND = timedelta(seconds=1)
TICK = {"t": "tick"}
QUEUE = app.conf.broker_transport_options["global_keyprefix"] + app.conf.task_default_queue


def queued_tasks() -> int:
    return get_redis().llen(QUEUE)


def test_what_is_overdue_gets_a_tick_and_nothing_else_does(namespace):
    now = timezone.now()
    late = make_actor(namespace, due_at=now - SECOND, alarm_at=now - SECOND)
    just = make_actor(namespace, due_at=now, alarm_at=now)
    early = make_actor(namespace, due_at=now + SECOND, alarm_at=now + SECOND)
    never = make_actor(namespace)

    assert sweep(now) == 2

    assert [signals("actors", actor.pk) for actor in (late, just, early, never)] == [[TICK], [TICK], [], []]


def test_runners_and_pools_are_swept_too(namespace):
    now = timezone.now()
    runner = make_runner(namespace, "r", state=Runner.State.DRAINING, due_at=now)
    pool = make_pool(namespace, due_at=now)
    sweep(now)
    assert signals("runners", runner.pk) == [TICK]
    assert signals("pools", pool.pk) == [TICK]


def test_a_runner_that_was_heard_of_is_not_late(namespace, settings):
    now = timezone.now()
    lost = timedelta(milliseconds=settings.ENV.runner_lost_ms)
    heard = make_runner(namespace, "heard", due_at=now - SECOND, last_ping_at=now - lost + SECOND)
    silent = make_runner(namespace, "silent", due_at=now - SECOND, last_ping_at=now - lost)
    sweep(now)
    assert (signals("runners", heard.pk), signals("runners", silent.pk)) == ([], [TICK])


def test_a_mailbox_that_is_far_behind_gets_no_more_ticks(namespace):
    now = timezone.now()
    actor = make_actor(namespace, due_at=now, alarm_at=now)
    mailbox.post("actors", actor.pk, *[{"t": "wake"}] * BACKLOG_LIMIT)
    assert sweep(now) == 0


def test_a_task_is_sent_for_a_mailbox_that_nobody_drains():
    mailbox.post("actors", "a", {"t": "wake"})
    mailbox.post("hosting", "r", {"t": "offer"})
    get_redis().delete(QUEUE)
    sweep(timezone.now())
    assert queued_tasks() == 2


def test_no_task_is_sent_for_a_mailbox_somebody_drains():
    mailbox.post("actors", "a", {"t": "wake"})
    get_redis().delete(QUEUE)
    get_redis().set(mailbox.lock_name("actors", mailbox.shard_of("a")), "a worker's token")
    sweep(timezone.now())
    assert queued_tasks() == 0


@pytest.fixture
def held() -> str:
    """A mailbox that waits, held by a worker whose lease lapses in a moment, and no task: the lock's name."""
    mailbox.post("actors", "a", {"t": "wake"})
    get_redis().delete(QUEUE)
    lock = mailbox.lock_name("actors", mailbox.shard_of("a"))
    get_redis().set(lock, "the token of a worker that was killed", px=LEASE_MS)
    return lock


LEASE_MS = 900
LATER = LEASE_MS / 1_000


def test_a_mailbox_gets_its_task_when_the_lease_lapses_and_not_only_at_the_next_sweep(held):
    sweep(timezone.now())
    look_again(time.monotonic())
    assert queued_tasks() == 0
    get_redis().delete(held)
    look_again(time.monotonic() + LATER)
    look_again(time.monotonic() + LATER)
    assert queued_tasks() == 1


def test_a_lease_that_was_started_anew_is_left_alone(held):
    sweep(timezone.now())
    get_redis().pexpire(held, 60_000)
    look_again(time.monotonic() + LATER)
    get_redis().delete(held)
    look_again(time.monotonic() + LATER)
    assert queued_tasks() == 0


def test_a_mailbox_that_was_drained_meanwhile_needs_no_task(held):
    sweep(timezone.now())
    get_redis().delete(held, mailbox.stream_name("actors", mailbox.shard_of("a")))
    look_again(time.monotonic() + LATER)
    assert queued_tasks() == 0


def test_the_sweeper_looks_again_between_two_sweeps(held, env):
    env(sweep_interval_ms=600_000)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ending = threading.Thread(target=_end_sweeper_after_a_task)
    try:
        ending.start()
        call_command("sweeper")
    finally:
        ending.join()
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert turns() == 1


ASK_WITHOUT_KOMBU = """
from orchestrator.celery import app
from orchestrator import retention
from orchestrator.workflow.sweep import ask_for_echoes
app.conf.broker_url = "redis://127.0.0.1:1/0"
app.conf.broker_transport_options = app.conf.broker_transport_options | {"max_retries": 0}
ask_for_echoes()
retention.begin()
"""


def test_the_sweeper_sends_tasks_over_the_connection_whose_errors_it_outlives(namespace):
    """Errors of kombu's connections are of another kind, and have ended it."""
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", ASK_WITHOUT_KOMBU]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=60)
    sent = [json.loads(task)["headers"]["task"] for task in get_redis().lrange(QUEUE, 0, -1)]
    assert sorted(sent) == ["orchestrator.echo", "orchestrator.forget"]


def turns() -> int:
    """Return how many tasks that drain a mailbox of actors wait for a worker."""
    return sum(b"actors.advance_shard" in task for task in get_redis().lrange(QUEUE, 0, -1))


def _end_sweeper_after_a_task() -> None:
    """Tell this process, which runs a sweeper, to end once it has sent one, or has had time enough."""
    with suppress(AssertionError):
        wait_until(lambda: turns() > 0, lambda: "a task is sent", 10)
    os.kill(os.getpid(), signal.SIGTERM)


def test_tasks_do_not_pile_up_while_workers_are_away():
    mailbox.post("actors", "a", {"t": "wake"})
    for _ in range(10):
        sweep(timezone.now())
    assert queued_tasks() <= 2


def test_after_redis_was_wiped_everything_overdue_is_signalled_again(namespace):
    now = timezone.now()
    actors = [make_actor(namespace, due_at=now, alarm_at=now) for _ in range(20)]
    sweep(now)
    get_redis().flushall()
    assert sweep(now) == 20
    assert all(signals("actors", actor.pk) == [TICK] for actor in actors)
    assert queued_tasks() == len({mailbox.shard_of(actor.pk) for actor in actors})


def test_two_sweepers_at_once_do_no_harm(namespace):
    now = timezone.now()
    actor = make_actor(namespace, due_at=now, alarm_at=now)
    threads = [threading.Thread(target=_sweep_in_a_thread, args=(now,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert signals("actors", actor.pk) == [TICK, TICK]


def _sweep_in_a_thread(now) -> None:
    try:
        sweep(now)
    finally:
        connections.close_all()


@pytest.mark.parametrize("overdue", [queue.overdue, storage_erasure.overdue, tasks.overdue, pool_tasks.overdue])
def test_overdue_rows_are_found_by_an_index(overdue):
    """Whoever adds a condition to a sweep must keep it cheap: it runs every second, over all rows."""
    with transaction.atomic(), connection.cursor() as cursor:
        with CaptureQueriesContext(connection) as queries:
            overdue(timezone.now(), 10)
        explain = "EXPLAIN"
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")  # which it prefers for tables this small
        else:
            explain = "EXPLAIN QUERY PLAN"
        cursor.execute(f"{explain} {queries[0]['sql']}")
        plan = str(cursor.fetchall())
    assert "due" in plan.lower().split("index", 1)[1], plan


# Timers


def test_a_timer_that_is_due_is_taken_once():
    now = timezone.now()
    pipeline = get_redis().pipeline()
    timers.add(pipeline, [("actors", "late", now - SECOND), ("actors", "early", now + 60 * SECOND)])
    pipeline.execute()
    assert [(letter.workflow, letter.key, letter.signal) for letter in timers.take_due()] == [
        ("actors", "late", TICK)
    ]
    assert timers.take_due() == []


def test_a_later_timer_for_the_same_key_takes_the_place_of_the_earlier():
    now = timezone.now()
    pipeline = get_redis().pipeline()
    timers.add(pipeline, [("actors", "a", now - SECOND)])
    timers.add(pipeline, [("actors", "a", now + 60 * SECOND)])
    pipeline.execute()
    assert timers.take_due() == []


def test_no_timers_are_no_trouble():
    pipeline = get_redis().pipeline()
    timers.add(pipeline, [])
    assert pipeline.execute() == []
    assert timers.take_due() == []
