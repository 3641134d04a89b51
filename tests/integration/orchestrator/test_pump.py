"""The pump: what is applied, what is removed, and what happens when something fails in between."""

import json
import threading
from collections.abc import Iterator
from functools import partial

import pytest
from django.conf import settings
from django.db import OperationalError, connections, transaction

from orchestrator.models import Namespace, SetAsideSignal
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox, pump
from orchestrator.workflow.envelope import queue_name
from orchestrator.workflow.lock import ShardLock
from orchestrator.workflow.pump import Workflow, advance, register

pytestmark = pytest.mark.django_db(transaction=True)

NAME = "test"
PATIENCE_S = 10.0


class Recorder:
    """A workflow that writes a row for each signal it is given, so that what was committed can be seen."""

    def __init__(self) -> None:
        self.batches: list[dict[str, list[int]]] = []
        self.poisoned: dict[str, str] = {}
        self.workflow = Workflow(NAME, self.apply, self.poisoned.__setitem__, lambda signal: "n" in signal)

    def apply(self, batch, outbox, now) -> None:
        self.batches.append({key: [signal["n"] for signal in signals] for key, signals in batch.items()})
        for key, signals in batch.items():
            for signal in signals:
                Namespace.objects.create(name=f"{key}-{signal['n']}", display_name="")
            if key == "poison":
                raise ValueError("I cannot")
            outbox.publish(f"heard:{key}", b"")

    def committed(self) -> set[str]:
        return set(Namespace.objects.values_list("name", flat=True))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def in_one_shard(shard: int) -> Iterator[str]:
    """Give keys of one shard."""
    number = 0
    while True:
        number += 1
        if mailbox.shard_of(f"key{number}") == shard:
            yield f"key{number}"


SHARD = mailbox.shard_of("poison")


def left() -> int:
    return get_redis().xlen(mailbox.stream_name(NAME, SHARD))


def test_all_that_waits_is_handled_in_order_and_nothing_is_left(recorder):
    first, second, *_ = (key for key, _ in zip(in_one_shard(SHARD), range(2), strict=False))
    for n in range(3):
        mailbox.post(NAME, first, {"n": n})
        mailbox.post(NAME, second, {"n": n})

    assert advance(recorder.workflow, SHARD) == 6

    assert recorder.batches == [{first: [0, 1, 2], second: [0, 1, 2]}]
    assert left() == 0
    assert not get_redis().exists(mailbox.lock_name(NAME, SHARD))


def test_a_full_mailbox_is_handled_in_batches(recorder, settings):
    many = settings.ENV.batch_signals + 5
    key = next(in_one_shard(SHARD))
    mailbox.post(NAME, key, *({"n": n} for n in range(many)))

    assert advance(recorder.workflow, SHARD) == many

    assert [batch[key] for batch in recorder.batches] == [
        list(range(many - 5)),
        list(range(many - 5, many)),
    ]


def test_an_empty_mailbox_is_no_news(recorder):
    assert advance(recorder.workflow, SHARD) == 0
    assert recorder.batches == []


def test_whoever_comes_second_leaves_at_once(recorder):
    holder = ShardLock(NAME, SHARD)
    mailbox.post(NAME, "poison", {"n": 1})
    assert holder.take_up()
    assert advance(recorder.workflow, SHARD) == 0
    assert (recorder.batches, left()) == ([], 1)


def test_poison_is_set_aside_and_the_rest_of_the_shard_goes_on(recorder):
    good = [key for key, _ in zip(in_one_shard(SHARD), range(3), strict=False)]
    mailbox.post(NAME, good[0], {"n": 1})
    mailbox.post(NAME, "poison", {"n": 1}, {"n": 2})
    mailbox.post(NAME, good[1], {"n": 1})
    mailbox.post(NAME, good[2], {"n": 1})

    assert advance(recorder.workflow, SHARD) == 5

    assert recorder.committed() == {f"{key}-1" for key in good}
    assert recorder.poisoned == {"poison": "ValueError: I cannot"}
    aside = SetAsideSignal.objects.filter(workflow=NAME, key="poison", error="ValueError: I cannot")
    assert sorted(row.signal["n"] for row in aside) == [1, 2]
    assert SetAsideSignal.objects.count() == 2
    assert left() == 0


def test_a_signal_that_only_a_later_release_knows_is_passed_over_and_the_others_of_its_key_go_on(recorder):
    key = next(in_one_shard(SHARD))
    mailbox.post(NAME, key, {"n": 1}, {"later": True}, {"n": 2})

    assert advance(recorder.workflow, SHARD) == 3

    assert recorder.batches == [{key: [1, 2]}]
    assert (SetAsideSignal.objects.count(), recorder.poisoned, left()) == (0, {}, 0)


def test_effects_follow_the_commit_and_only_of_what_was_committed(recorder):
    good = next(in_one_shard(SHARD))
    with get_redis().pubsub(ignore_subscribe_messages=True) as heard:
        heard.psubscribe("heard:*")
        heard.get_message(timeout=PATIENCE_S)
        mailbox.post(NAME, "poison", {"n": 1})
        mailbox.post(NAME, good, {"n": 1})
        advance(recorder.workflow, SHARD)
        message = heard.get_message(timeout=PATIENCE_S)
        assert message["channel"].decode() == f"heard:{good}"
        assert heard.get_message(timeout=0.05) is None


class FailingDatabase(Recorder):
    """Its database fails so many times, after part of the batch was written."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    def apply(self, batch, outbox, now) -> None:
        super().apply(batch, outbox, now)
        if self.failures:
            self.failures -= 1
            raise OperationalError("server closed the connection unexpectedly")


def test_a_connection_that_went_stale_costs_nothing():
    recorder = FailingDatabase(failures=1)
    mailbox.post(NAME, "poison-free", {"n": 1})
    shard = mailbox.shard_of("poison-free")
    assert advance(recorder.workflow, shard) == 1
    assert recorder.committed() == {"poison-free-1"}


def test_nothing_is_lost_when_the_database_fails_in_the_middle_of_a_batch():
    recorder = FailingDatabase(failures=2)
    keys = [key for key, _ in zip(in_one_shard(SHARD), range(3), strict=False)]
    for key in keys:
        mailbox.post(NAME, key, {"n": 1})

    with pytest.raises(OperationalError):
        advance(recorder.workflow, SHARD)

    assert (recorder.committed(), left(), recorder.poisoned) == (set(), 3, {})
    assert not SetAsideSignal.objects.exists()
    assert not get_redis().exists(mailbox.lock_name(NAME, SHARD)), "the next worker need not wait for the lease"
    assert advance(recorder.workflow, SHARD) == 3
    assert recorder.committed() == {f"{key}-1" for key in keys}


def test_a_database_that_fails_among_poisoned_keys_loses_nothing_either():
    class Both(FailingDatabase):
        def apply(self, batch, outbox, now) -> None:
            if len(batch) > 1:
                raise ValueError("try them one by one")
            super().apply(batch, outbox, now)

    recorder = Both(failures=1)
    keys = [key for key, _ in zip(in_one_shard(SHARD), range(2), strict=False)]
    for key in keys:
        mailbox.post(NAME, key, {"n": 1})
    with pytest.raises(OperationalError):
        advance(recorder.workflow, SHARD)
    assert (left(), recorder.poisoned) == (2, {})


class Gate(Recorder):
    """A worker that stops when it has committed and has removed nothing yet, until it is let through."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.open = threading.Event()

    def apply(self, batch, outbox, now) -> None:
        self.batches.append({key: [signal["n"] for signal in signals] for key, signals in batch.items()})
        transaction.on_commit(self.stall)

    def stall(self) -> None:
        self.reached.set()
        assert self.open.wait(PATIENCE_S)


def in_thread(job) -> threading.Thread:
    def run() -> None:
        try:
            job()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def queued_tasks() -> int:
    from orchestrator.celery import app

    return get_redis().llen(app.conf.broker_transport_options["global_keyprefix"] + app.conf.task_default_queue)


def test_a_worker_whose_lease_has_lapsed_removes_no_more_than_it_has_read(recorder):
    """It stalled; another has taken over, has handled the same signals and received new ones."""
    key = next(in_one_shard(SHARD))
    stalled = Gate()
    mailbox.post(NAME, key, {"n": 1})
    thread = in_thread(lambda: advance(stalled.workflow, SHARD))
    assert stalled.reached.wait(PATIENCE_S)
    get_redis().delete(mailbox.lock_name(NAME, SHARD))  # its lease lapses

    assert advance(recorder.workflow, SHARD) == 1
    mailbox.post(NAME, key, {"n": 2})
    tasks = queued_tasks()
    stalled.open.set()
    thread.join(PATIENCE_S)

    assert left() == 1, "the signal posted after the takeover is still there"
    assert queued_tasks() == tasks + 1, "and somebody is sent for it"
    assert advance(recorder.workflow, SHARD) == 1
    assert recorder.batches == [{key: [1]}, {key: [2]}]


def test_a_worker_whose_lease_has_lapsed_does_not_release_anothers(recorder):
    key = next(in_one_shard(SHARD))
    stalled = Gate()
    mailbox.post(NAME, key, {"n": 1})
    thread = in_thread(lambda: advance(stalled.workflow, SHARD))
    assert stalled.reached.wait(PATIENCE_S)
    get_redis().delete(mailbox.lock_name(NAME, SHARD))
    other = ShardLock(NAME, SHARD)
    assert other.take_up()

    stalled.open.set()
    thread.join(PATIENCE_S)

    assert other.go_on([]) is not None


def test_a_signal_posted_while_its_shard_is_held_is_handled_by_the_holder():
    key = next(in_one_shard(SHARD))
    holder = Gate()
    mailbox.post(NAME, key, {"n": 1})
    assert queued_tasks() == 1
    thread = in_thread(lambda: advance(holder.workflow, SHARD))
    assert holder.reached.wait(PATIENCE_S)

    mailbox.post(NAME, key, {"n": 2})
    assert queued_tasks() == 1, "no task is needed"
    holder.open.set()
    thread.join(PATIENCE_S)

    assert holder.batches == [{key: [1]}, {key: [2]}]


def test_no_signal_slips_in_between_the_last_look_and_the_release():
    """Posters and workers race; whoever is told that a task is needed sends one, as Celery would."""
    key = next(in_one_shard(SHARD))
    tasks = threading.Semaphore(0)
    handled: set[int] = set()
    news = threading.Condition()
    done = threading.Event()

    def apply(batch, outbox, now) -> None:
        with news:
            handled.update(signal["n"] for signals in batch.values() for signal in signals)
            news.notify()

    workflow = Workflow(NAME, apply, lambda key, error: None)

    def work() -> None:
        while not done.is_set():
            if tasks.acquire(timeout=0.05):
                advance(workflow, SHARD)

    threads = [in_thread(work) for _ in range(3)]
    try:
        for n in range(300):
            before = queued_tasks()
            mailbox.post(NAME, key, {"n": n})
            for _ in range(queued_tasks() - before):
                tasks.release()
            with news:
                assert news.wait_for(lambda n=n: n in handled, PATIENCE_S)
            while left():
                pass
            for _ in range(n % 5):  # the next one is posted just when the holder looks for the last time
                left()
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE_S)


def test_the_lease_is_started_anew_after_each_batch(recorder, monkeypatch):
    key = next(in_one_shard(SHARD))
    many = settings.ENV.batch_signals + 1
    mailbox.post(NAME, key, *({"n": n} for n in range(many)))
    lock = mailbox.lock_name(NAME, SHARD)
    remaining: list[int] = []

    def apply(batch, outbox, now) -> None:
        remaining.append(get_redis().pttl(lock))
        get_redis().pexpire(lock, 500)  # as if the batch took most of the lease

    advance(Workflow(NAME, apply, lambda key, error: None), SHARD)
    assert len(remaining) == 2
    assert remaining[1] > settings.ENV.lock_lease_ms - 500


class Courier:
    """Two workflows that pass what they are told on to each other, up to a number, and a copy elsewhere."""

    def __init__(self, monkeypatch, times: int, *, copies: bool = True) -> None:
        self.heard: list[tuple[str, int]] = []
        monkeypatch.setattr(pump, "_workflows", {})
        self.first = register(Workflow("first", partial(self.apply, "first", "second"), lambda key, error: None))
        register(Workflow("second", partial(self.apply, "second", "first"), lambda key, error: None))
        self._times, self._copies = times, copies

    def apply(self, name, other, batch, outbox, now) -> None:
        for key, signals in batch.items():
            for signal in signals:
                self.heard.append((name, signal["n"]))
                if signal["n"] < self._times:
                    outbox.post(other, key, {"n": signal["n"] + 1})
                    if self._copies:
                        outbox.post("elsewhere", key, {"n": 0})


def queue_of_tasks() -> list[str]:
    """Return the names of the tasks that wait, oldest first, and empty the queue."""
    waiting = get_redis().lrange(queue_name(), 0, -1)
    get_redis().delete(queue_name())
    return [json.loads(message)["headers"]["task"] for message in reversed(waiting)]


def test_a_task_goes_on_with_what_it_has_told_another_workflow(monkeypatch):
    courier = Courier(monkeypatch, times=1)
    mailbox.post("first", "key", {"n": 0})
    assert queue_of_tasks() == ["first.advance_shard"]
    assert advance(courier.first, mailbox.shard_of("key")) == 2
    assert courier.heard == [("first", 0), ("second", 1)]
    assert queue_of_tasks() == ["elsewhere.advance_shard"], "of what it writes to it goes on with the first alone"


@pytest.mark.parametrize(("others", "handled"), [(1, 2), (2, 1)])
def test_it_does_not_while_more_than_one_other_waits_for_a_worker(monkeypatch, others, handled):
    courier = Courier(monkeypatch, times=1)
    mailbox.post("first", "key", {"n": 0})
    queue_of_tasks()
    for _ in range(others):
        mailbox.send_task("another", 0)
    assert advance(courier.first, mailbox.shard_of("key")) == handled
    assert courier.heard == [("first", 0), ("second", 1)][:handled]
    left = [] if handled == 2 else ["second.advance_shard"]
    assert queue_of_tasks() == ["another.advance_shard"] * others + left + ["elsewhere.advance_shard"]


def test_it_does_not_go_on_for_ever(monkeypatch):
    monkeypatch.setattr(pump, "ERRANDS", 3)
    courier = Courier(monkeypatch, times=100, copies=False)
    mailbox.post("first", "key", {"n": 0})
    queue_of_tasks()
    advance(courier.first, mailbox.shard_of("key"))
    assert courier.heard == [("first", 0), ("second", 1), ("first", 2), ("second", 3)]
    assert queue_of_tasks() == ["first.advance_shard"]
