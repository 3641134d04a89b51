"""What becomes of an actor: every pair of state and signal, then the rules of PROTOCOL §4 one by one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from actors import life
from actors.life import (
    AlarmReport,
    Allocate,
    Allocated,
    Asleep,
    Audit,
    Backoff,
    Bump,
    Cause,
    CrashPolicy,
    Created,
    Deallocate,
    Destroy,
    Destroyed,
    Dispatch,
    Failure,
    FailureKind,
    FromRunner,
    Halt,
    Life,
    Limits,
    Missing,
    NoSlot,
    Pending,
    PublishDestroyed,
    PublishReady,
    PublishStopped,
    PublishStopping,
    Reschedule,
    RunnerDraining,
    RunnerLost,
    Running,
    RunningReport,
    Sleep,
    SleepIntent,
    SlotFree,
    Start,
    Starting,
    StopIntent,
    StoppedReport,
    Stopping,
    StopReason,
    Tick,
    Wake,
)
from actors.lifecycle import decide, due_at

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LIMITS = Limits(start=30 * SECOND, stop=1800 * SECOND, pending=60 * SECOND)
RUNNER, OTHER = "runner-1", "runner-2"
G = 3

LIFE = Life(CrashPolicy.SLEEP, generation=G, started_at=NOON - 900 * SECOND)
NO_CAPACITY = Failure(FailureKind.NO_CAPACITY)
CRASH = Failure(FailureKind.CRASHED, message="boom")
LOST = Failure(FailureKind.RUNNER_CONNECTION_LOST, runner_id=RUNNER)

CREATED = Created(Life(CrashPolicy.SLEEP), due=NOON)
PENDING = Pending(LIFE, NOON - SECOND, Cause.WAKE, NOON + SECOND, gives_up_at=NOON + 59 * SECOND)
BACKOFF = Backoff(replace(LIFE, failure=CRASH, retries=2, retried_at=NOON), Cause.WAKE, NOON + 2 * SECOND)
STARTING = Starting(LIFE, RUNNER, -1, NOON + 20 * SECOND)
RUNNING = Running(LIFE, RUNNER, 4, NOON - 60 * SECOND, NOON + 60 * SECOND)
STOPPING = Stopping(LIFE, RUNNER, 5, None, StopReason.SLEEP, NOON + 1800 * SECOND, wake_after=False)
ASLEEP = Asleep(LIFE, NOON - 60 * SECOND)
DESTROYED = Destroyed(LIFE, NOON - 60 * SECOND)
STATES = [CREATED, PENDING, BACKOFF, STARTING, RUNNING, STOPPING, ASLEEP, DESTROYED]
HOSTED = [STARTING, RUNNING, STOPPING]


def report(
    what: life.Report,
    *,
    index: int = 7,
    generation: int = G,
    runner_id: str = RUNNER,
    heard_at: datetime | None = None,
    after: int | None = None,
) -> FromRunner:
    return FromRunner(runner_id, generation, index, what, heard_at, after)


STOPPED_OK = report(StoppedReport(ok=True))
STOPPED_BADLY = report(StoppedReport(ok=False, message="boom"))
STOPPED_LATER = report(StoppedReport(ok=False), index=8)

SIGNALS = {
    "Start": Start(),
    "Wake": Wake(),
    "SlotFree": SlotFree(),
    "Allocated": Allocated(OTHER),
    "NoSlot": NoSlot(on_demand=True),
    "RunningReport": report(RunningReport()),
    "SleepIntent": report(SleepIntent()),
    "StopIntent": report(StopIntent()),
    "StoppedReport": STOPPED_BADLY,
    "AlarmReport": report(AlarmReport(NOON + 60 * SECOND)),
    "RunnerLost": RunnerLost(RUNNER, NOON - 15 * SECOND),
    "Missing": Missing(RUNNER, G),
    "RunnerDraining": RunnerDraining(RUNNER, NOON + 10 * SECOND),
    "Sleep": Sleep(),
    "Reschedule": Reschedule(),
    "Destroy": Destroy(),
    "Tick": Tick(),
}

# Of each state and signal: the next kind of state, and the effects in order. The signals are those above: of the
# right runner and generation, of an event not seen before; and nothing is due yet.
PAIRS = {
    "Created": {
        "Start": ("Pending", "Allocate"),
        "Wake": ("Pending", "Allocate"),
        "SlotFree": ("Pending", "Allocate"),
        "Allocated": ("Created", ""),
        "NoSlot": ("Created", ""),
        "RunningReport": ("Created", ""),
        "SleepIntent": ("Created", ""),
        "StopIntent": ("Created", ""),
        "StoppedReport": ("Created", ""),
        "AlarmReport": ("Created", ""),
        "RunnerLost": ("Created", ""),
        "Missing": ("Created", ""),
        "RunnerDraining": ("Created", ""),
        "Sleep": ("Created", ""),
        "Reschedule": ("Pending", "Allocate"),
        "Destroy": ("Destroyed", "Bump Destroyed"),
        "Tick": ("Pending", "Allocate"),
    },
    "Pending": {
        "Start": ("Pending", "Allocate"),
        "Wake": ("Pending", "Allocate"),
        "SlotFree": ("Pending", "Allocate"),
        "Allocated": ("Starting", "Dispatch"),
        "NoSlot": ("Pending", "Bump"),
        "RunningReport": ("Pending", ""),
        "SleepIntent": ("Pending", ""),
        "StopIntent": ("Pending", ""),
        "StoppedReport": ("Pending", ""),
        "AlarmReport": ("Pending", ""),
        "RunnerLost": ("Pending", ""),
        "Missing": ("Pending", ""),
        "RunnerDraining": ("Pending", ""),
        "Sleep": ("Pending", ""),
        "Reschedule": ("Pending", "Allocate"),
        "Destroy": ("Destroyed", "Bump Destroyed"),
        "Tick": ("Pending", "Allocate"),
    },
    "Backoff": {
        "Start": ("Backoff", ""),
        "Wake": ("Backoff", ""),
        "SlotFree": ("Backoff", ""),
        "Allocated": ("Backoff", ""),
        "NoSlot": ("Backoff", ""),
        "RunningReport": ("Backoff", ""),
        "SleepIntent": ("Backoff", ""),
        "StopIntent": ("Backoff", ""),
        "StoppedReport": ("Backoff", ""),
        "AlarmReport": ("Backoff", ""),
        "RunnerLost": ("Backoff", ""),
        "Missing": ("Backoff", ""),
        "RunnerDraining": ("Backoff", ""),
        "Sleep": ("Backoff", ""),
        "Reschedule": ("Pending", "Allocate"),
        "Destroy": ("Destroyed", "Bump Destroyed"),
        "Tick": ("Backoff", ""),
    },
    "Starting": {
        "Start": ("Starting", ""),
        "Wake": ("Starting", ""),
        "SlotFree": ("Starting", ""),
        "Allocated": ("Starting", ""),
        "NoSlot": ("Starting", ""),
        "RunningReport": ("Running", "Ready"),
        "SleepIntent": ("Stopping", "Stopping Halt"),
        "StopIntent": ("Stopping", "Stopping Halt"),
        "StoppedReport": ("Asleep", "Deallocate Bump Stopped"),
        "AlarmReport": ("Starting", ""),
        "RunnerLost": ("Asleep", "Deallocate Bump Stopped"),
        "Missing": ("Asleep", "Halt Deallocate Bump Stopped"),
        "RunnerDraining": ("Stopping", "Stopping Halt"),
        "Sleep": ("Stopping", "Stopping Halt"),
        "Reschedule": ("Stopping", "Stopping Halt"),
        "Destroy": ("Destroyed", "Halt Deallocate Bump Destroyed"),
        "Tick": ("Starting", ""),
    },
    "Running": {
        "Start": ("Running", ""),
        "Wake": ("Running", "Ready"),
        "SlotFree": ("Running", ""),
        "Allocated": ("Running", ""),
        "NoSlot": ("Running", ""),
        "RunningReport": ("Running", ""),
        "SleepIntent": ("Stopping", "Stopping Halt"),
        "StopIntent": ("Stopping", "Stopping Halt"),
        "StoppedReport": ("Asleep", "Deallocate Bump Stopped"),
        "AlarmReport": ("Running", ""),
        "RunnerLost": ("Asleep", "Deallocate Bump Stopped"),
        "Missing": ("Asleep", "Halt Deallocate Bump Stopped"),
        "RunnerDraining": ("Stopping", "Stopping Halt"),
        "Sleep": ("Stopping", "Stopping Halt"),
        "Reschedule": ("Stopping", "Stopping Halt"),
        "Destroy": ("Destroyed", "Halt Deallocate Bump Destroyed"),
        "Tick": ("Running", ""),
    },
    "Stopping": {
        "Start": ("Stopping", ""),
        "Wake": ("Stopping", ""),
        "SlotFree": ("Stopping", ""),
        "Allocated": ("Stopping", ""),
        "NoSlot": ("Stopping", ""),
        "RunningReport": ("Stopping", ""),
        "SleepIntent": ("Stopping", ""),
        "StopIntent": ("Stopping", ""),
        "StoppedReport": ("Asleep", "Deallocate Bump Stopped"),
        "AlarmReport": ("Stopping", ""),
        "RunnerLost": ("Asleep", "Deallocate Bump Stopped"),
        "Missing": ("Asleep", "Deallocate Bump Stopped"),
        "RunnerDraining": ("Stopping", ""),
        "Sleep": ("Stopping", ""),
        "Reschedule": ("Stopping", ""),
        "Destroy": ("Destroyed", "Deallocate Bump Destroyed"),
        "Tick": ("Stopping", ""),
    },
    "Asleep": {
        "Start": ("Asleep", ""),
        "Wake": ("Pending", "Allocate"),
        "SlotFree": ("Asleep", ""),
        "Allocated": ("Asleep", ""),
        "NoSlot": ("Asleep", ""),
        "RunningReport": ("Asleep", ""),
        "SleepIntent": ("Asleep", ""),
        "StopIntent": ("Asleep", ""),
        "StoppedReport": ("Asleep", ""),
        "AlarmReport": ("Asleep", ""),
        "RunnerLost": ("Asleep", ""),
        "Missing": ("Asleep", ""),
        "RunnerDraining": ("Asleep", ""),
        "Sleep": ("Asleep", ""),
        "Reschedule": ("Pending", "Allocate"),
        "Destroy": ("Destroyed", "Destroyed"),
        "Tick": ("Asleep", ""),
    },
    "Destroyed": {
        "Start": ("Destroyed", ""),
        "Wake": ("Destroyed", ""),
        "SlotFree": ("Destroyed", ""),
        "Allocated": ("Destroyed", ""),
        "NoSlot": ("Destroyed", ""),
        "RunningReport": ("Destroyed", ""),
        "SleepIntent": ("Destroyed", ""),
        "StopIntent": ("Destroyed", ""),
        "StoppedReport": ("Destroyed", ""),
        "AlarmReport": ("Destroyed", ""),
        "RunnerLost": ("Destroyed", ""),
        "Missing": ("Destroyed", ""),
        "RunnerDraining": ("Destroyed", ""),
        "Sleep": ("Destroyed", ""),
        "Reschedule": ("Destroyed", ""),
        "Destroy": ("Destroyed", ""),
        "Tick": ("Destroyed", ""),
    },
}

EFFECTS = {
    "Allocate": Allocate(),
    "Dispatch": Dispatch(OTHER, G + 1),
    "Halt": Halt(RUNNER, G),
    "Deallocate": Deallocate(RUNNER),
    "Bump": Bump(),
    "Audit": Audit(RUNNER),
    "Ready": PublishReady(RUNNER, G),
    "Stopping": PublishStopping(G),
    "Stopped": PublishStopped(G),
    "Destroyed": PublishDestroyed(),
}


def name(thing: object) -> str:
    return type(thing).__name__


def effects_of(words: str) -> list[life.Effect]:
    return [EFFECTS[word] for word in words.split()]


def test_the_table_has_every_pair():
    signals = {kind.__name__ for kind in (*get_args(life.Signal), *get_args(life.Report))} - {"FromRunner"}
    assert set(PAIRS) == {kind.__name__ for kind in get_args(life.State)}
    assert set(SIGNALS) == signals
    assert all(set(pairs) == signals for pairs in PAIRS.values())


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("state", STATES, ids=name)
def test_every_pair_has_its_answer(state, signal):
    kind, effects = PAIRS[name(state)][signal]

    after, performed = decide(state, SIGNALS[signal], NOON, LIMITS)

    assert (name(after), performed) == (kind, effects_of(effects))


TIME_IS_UP = [
    (BACKOFF, BACKOFF.due, "Pending", "Allocate"),
    (PENDING, PENDING.gives_up_at, "Asleep", "Bump"),
    (STARTING, STARTING.due, "Asleep", "Halt Deallocate Bump Stopped"),
    (RUNNING, RUNNING.due, "Running", "Audit"),
    (STOPPING, STOPPING.due, "Asleep", "Deallocate Bump Stopped"),
]


@pytest.mark.parametrize(("state", "due", "kind", "effects"), TIME_IS_UP, ids=lambda value: name(value))
def test_a_deadline_is_met_when_it_is_reached_and_not_before(state, due, kind, effects):
    just_before, _ = decide(state, Tick(), due - timedelta(microseconds=1), LIMITS)
    assert name(just_before) == name(state)
    after, performed = decide(state, Tick(), due, LIMITS)
    assert (name(after), performed) == (kind, effects_of(effects))


# Creation and the queue (PROTOCOL §4.8, API §3.2)


def test_the_first_generation_is_0_however_long_it_waited():
    pending, _ = decide(CREATED, Start(), NOON, LIMITS)
    waiting, _ = decide(pending, NoSlot(on_demand=True), NOON, LIMITS)
    starting, effects = decide(waiting, Allocated(RUNNER), NOON + 500 * SECOND, LIMITS)
    assert effects == [Dispatch(RUNNER, 0)]
    assert starting == Starting(Life(CrashPolicy.SLEEP, generation=0), RUNNER, -1, NOON + 530 * SECOND)


@pytest.mark.parametrize(
    ("policy", "on_demand", "kind"),
    [
        (CrashPolicy.SLEEP, False, "Asleep"),
        (CrashPolicy.SLEEP, True, "Pending"),
        (CrashPolicy.RESTART, False, "Pending"),
        (CrashPolicy.RESTART, True, "Pending"),
        (CrashPolicy.DESTROY, False, "Pending"),
        (CrashPolicy.DESTROY, True, "Pending"),
    ],
)
def test_a_new_actor_without_a_slot_sleeps_if_runners_come_only_by_chance(policy, on_demand, kind):
    pending, _ = decide(Created(Life(policy), NOON), Start(), NOON, LIMITS)
    after, _ = decide(pending, NoSlot(on_demand), NOON, LIMITS)
    assert name(after) == kind
    assert after.life.failure == NO_CAPACITY


def test_an_actor_that_waits_goes_on_waiting_when_its_pool_ceases_to_start_runners():
    pending, _ = decide(CREATED, Start(), NOON, LIMITS)
    waiting, _ = decide(pending, NoSlot(on_demand=True), NOON, LIMITS)
    after, _ = decide(waiting, NoSlot(on_demand=False), NOON + 9 * SECOND, LIMITS)
    assert name(after) == "Pending"


def test_an_actor_asleep_from_birth_waits_when_it_is_called():
    asleep = Asleep(Life(CrashPolicy.SLEEP, failure=NO_CAPACITY), NOON)
    pending, _ = decide(asleep, Wake(), NOON, LIMITS)
    after, effects = decide(pending, NoSlot(on_demand=False), NOON, LIMITS)
    assert (name(after), effects) == ("Pending", [Bump()])


def test_a_queued_actor_shows_that_there_is_no_capacity_until_it_is_allocated():
    pending, _ = decide(Asleep(replace(LIFE, failure=LOST), NOON), Wake(), NOON, LIMITS)
    waiting, _ = decide(pending, NoSlot(on_demand=True), NOON, LIMITS)
    assert waiting.life.failure == NO_CAPACITY
    starting, _ = decide(waiting, Allocated(RUNNER), NOON, LIMITS)
    assert starting.life.failure is None


@pytest.mark.parametrize(
    ("cause", "gives_up"),
    [(Cause.WAKE, True), (Cause.RESTART, True), (Cause.CREATION, False), (Cause.ALARM, False)],
)
def test_only_wakes_and_restarts_are_given_up(cause, gives_up):
    states = {
        Cause.WAKE: (ASLEEP, Wake()),
        Cause.RESTART: (replace(RUNNING, life=replace(LIFE, policy=CrashPolicy.RESTART)), STOPPED_BADLY),
        Cause.CREATION: (CREATED, Start()),
        Cause.ALARM: (Asleep(replace(LIFE, alarm_at=NOON), NOON - SECOND), Tick()),
    }
    pending, _ = decide(*states[cause], NOON, LIMITS)
    assert pending.cause is cause
    assert pending.gives_up_at == (NOON + 60 * SECOND if gives_up else None)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("signal", [Wake(again=True), Reschedule()], ids=name)
def test_a_queued_actor_that_is_called_again_waits_longer(signal, late):
    now = PENDING.gives_up_at + SECOND if late else NOON
    after, effects = decide(PENDING, signal, now, LIMITS)
    assert (after.gives_up_at, effects) == (now + 60 * SECOND, [Allocate()])


def test_a_free_slot_is_looked_at_even_when_the_wait_has_just_run_out():
    after, effects = decide(PENDING, SlotFree(), PENDING.gives_up_at, LIMITS)
    assert (name(after), effects) == ("Pending", [Allocate()])


def test_a_queued_actor_keeps_its_place():
    for signal in (Wake(), SlotFree(), Tick(), Reschedule(), NoSlot(on_demand=True)):
        after, _ = decide(PENDING, signal, NOON + SECOND, LIMITS)
        assert after.since == PENDING.since


def test_many_calls_at_once_look_for_a_slot_once():
    pending, first = decide(ASLEEP, Wake(), NOON, LIMITS)
    refused, _ = decide(pending, NoSlot(on_demand=True), NOON, LIMITS)
    again, second = decide(refused, Wake(), NOON, LIMITS)
    assert (first, second) == ([Allocate()], [])
    assert again == refused
    assert decide(refused, SlotFree(), NOON, LIMITS)[1] == [Allocate()]


# Running (PROTOCOL §4.5)


def test_a_running_actor_is_connectable_from_now_on_and_keeps_when_it_first_ran():
    first, _ = decide(
        Starting(Life(CrashPolicy.SLEEP, 0), RUNNER, -1, NOON), report(RunningReport(), generation=0), NOON, LIMITS
    )
    assert (first.connectable_at, first.life.started_at) == (NOON, NOON)
    again, _ = decide(STARTING, report(RunningReport()), NOON, LIMITS)
    assert (again.connectable_at, again.life.started_at) == (NOON, LIFE.started_at)


def test_a_running_actors_runner_is_looked_at_again_and_again():
    running, _ = decide(STARTING, report(RunningReport()), NOON, LIMITS)
    assert running.due == NOON + LIMITS.audit
    for _ in range(3):
        due = running.due
        running, effects = decide(running, Tick(), due, LIMITS)
        assert (running.due, effects) == (due + LIMITS.audit, [Audit(RUNNER)])


@pytest.mark.parametrize(
    ("signal", "reason", "due"),
    [
        (report(SleepIntent()), StopReason.SLEEP, NOON + LIMITS.stop),
        (Sleep(), StopReason.SLEEP, NOON + LIMITS.stop),
        (report(StopIntent()), StopReason.STOP, NOON + LIMITS.stop),
        (Reschedule(), StopReason.RESCHEDULE, NOON + LIMITS.stop),
        (RunnerDraining(RUNNER, NOON + 10 * SECOND), StopReason.DRAIN, NOON + 10 * SECOND + LIMITS.evict),
    ],
    ids=lambda value: name(value),
)
def test_the_first_reason_to_stop_stands(signal, reason, due):
    stopping, _ = decide(RUNNING, signal, NOON, LIMITS)
    assert (stopping.reason, stopping.due) == (reason, due)
    for other in (report(SleepIntent(), index=9), report(StopIntent(), index=9), Sleep(), Reschedule()):
        after, effects = decide(stopping, other, NOON, LIMITS)
        assert (after.reason, effects) == (reason, [])


def test_a_draining_runner_hurries_a_stop_that_is_under_way():
    after, effects = decide(STOPPING, RunnerDraining(RUNNER, NOON + 10 * SECOND), NOON, LIMITS)
    assert (after, effects) == (replace(STOPPING, due=NOON + 10 * SECOND + LIMITS.evict), [])


def test_an_actor_of_a_draining_runner_is_given_up_only_after_the_eviction():
    stopping, _ = decide(RUNNING, RunnerDraining(RUNNER, NOON + 10 * SECOND), NOON, LIMITS)
    assert decide(stopping, Tick(), NOON + 11 * SECOND, LIMITS) == (stopping, [])


# What follows a stop (PROTOCOL §4.6)

S, R, D = CrashPolicy.SLEEP, CrashPolicy.RESTART, CrashPolicy.DESTROY
SLEEPS, DRAINED = StopReason.SLEEP, StopReason.DRAIN
OK, BADLY = STOPPED_OK, STOPPED_BADLY
GONE = RunnerLost(RUNNER, NOON - 15 * SECOND)
TIMED_OUT = RunnerLost(RUNNER, NOON, FailureKind.RUNNER_DRAINING_TIMEOUT)

AFTER_A_STOP = [
    (S, SLEEPS, OK, "Asleep", None),
    (S, SLEEPS, BADLY, "Asleep", None),
    (S, SLEEPS, GONE, "Asleep", None),
    (R, SLEEPS, OK, "Asleep", None),
    (R, SLEEPS, BADLY, "Asleep", None),
    (R, SLEEPS, GONE, "Asleep", None),
    (D, SLEEPS, OK, "Asleep", None),
    (D, SLEEPS, BADLY, "Asleep", None),
    (D, SLEEPS, GONE, "Asleep", None),
    (S, None, OK, "Destroyed", None),
    (R, None, OK, "Destroyed", None),
    (D, None, OK, "Destroyed", None),
    (S, StopReason.STOP, OK, "Destroyed", None),
    (R, StopReason.STOP, OK, "Destroyed", None),
    (D, StopReason.STOP, OK, "Destroyed", None),
    (S, None, BADLY, "Asleep", CRASH),
    (R, None, BADLY, "Pending", CRASH),
    (D, None, BADLY, "Destroyed", CRASH),
    (S, StopReason.STOP, BADLY, "Asleep", CRASH),
    (R, StopReason.STOP, BADLY, "Pending", CRASH),
    (D, StopReason.STOP, BADLY, "Destroyed", CRASH),
    (S, DRAINED, OK, "Asleep", None),
    (R, DRAINED, OK, "Pending", None),
    (D, DRAINED, OK, "Destroyed", None),
    (S, DRAINED, BADLY, "Asleep", None),
    (R, DRAINED, BADLY, "Pending", None),
    (D, DRAINED, BADLY, "Destroyed", None),
    (S, None, GONE, "Asleep", LOST),
    (R, None, GONE, "Pending", LOST),
    (D, None, GONE, "Destroyed", LOST),
    (S, DRAINED, TIMED_OUT, "Asleep", Failure(FailureKind.RUNNER_DRAINING_TIMEOUT, RUNNER)),
    (R, DRAINED, TIMED_OUT, "Pending", Failure(FailureKind.RUNNER_DRAINING_TIMEOUT, RUNNER)),
    (D, DRAINED, TIMED_OUT, "Destroyed", Failure(FailureKind.RUNNER_DRAINING_TIMEOUT, RUNNER)),
    (S, StopReason.RESCHEDULE, BADLY, "Pending", None),
    (R, StopReason.RESCHEDULE, OK, "Pending", None),
    (D, StopReason.RESCHEDULE, BADLY, "Pending", None),
]


@pytest.mark.parametrize(("policy", "reason", "end", "kind", "failure"), AFTER_A_STOP)
def test_what_follows_a_stop(policy, reason, end, kind, failure):
    mine = replace(LIFE, policy=policy)
    rescheduled = reason is StopReason.RESCHEDULE
    state = (
        replace(RUNNING, life=mine)
        if reason is None
        else replace(STOPPING, life=mine, reason=reason, wake_after=rescheduled)
    )
    after, effects = decide(state, end, NOON, LIMITS)
    assert (name(after), after.life.failure) == (kind, failure)
    told = PublishDestroyed() if kind == "Destroyed" else PublishStopped(G)
    assert effects[:3] == [Deallocate(RUNNER), Bump(), told]
    assert effects[3:] == ([Allocate()] if kind == "Pending" else [])


def test_a_wake_during_a_stop_is_served_by_the_next_generation():
    deferred, effects = decide(STOPPING, Wake(), NOON, LIMITS)
    assert (deferred, effects) == (replace(STOPPING, wake_after=True), [])
    pending, effects = decide(deferred, STOPPED_BADLY, NOON, LIMITS)
    assert effects == [*effects_of("Deallocate Bump Stopped"), Allocate()]
    starting, effects = decide(pending, Allocated(OTHER), NOON, LIMITS)
    assert effects == [Dispatch(OTHER, G + 1)]
    assert decide(starting, Wake(), NOON, LIMITS) == (starting, [])


@pytest.mark.parametrize("state", HOSTED, ids=name)
def test_a_rescheduled_actor_is_started_again(state):
    stopping, _ = decide(state, Reschedule(), NOON, LIMITS)
    assert (name(stopping), stopping.wake_after) == ("Stopping", True)
    after, _ = decide(stopping, STOPPED_LATER, NOON, LIMITS)
    assert (name(after), after.life.failure) == ("Pending", None)


@pytest.mark.parametrize("reason", [StopReason.SLEEP, StopReason.STOP, StopReason.DRAIN, StopReason.RESCHEDULE])
@pytest.mark.parametrize("end", [STOPPED_BADLY, GONE, Missing(RUNNER, G), Tick()], ids=name)
def test_no_end_forgets_a_deferred_wake(reason, end):
    state = replace(STOPPING, reason=reason, wake_after=True, due=NOON)
    after, _ = decide(state, end, NOON, LIMITS)
    assert (name(after), after.cause) == ("Pending", Cause.WAKE)


def test_a_runner_that_never_says_running_or_stopped_is_named():
    after, _ = decide(STARTING, Tick(), STARTING.due, LIMITS)
    assert after.life.failure == Failure(FailureKind.RUNNER_NO_RESPONSE, RUNNER)
    stopping = replace(STOPPING, reason=StopReason.STOP)
    after, _ = decide(stopping, Tick(), stopping.due, LIMITS)
    assert after.life.failure == Failure(FailureKind.RUNNER_NO_RESPONSE, RUNNER)


# Backoff (PROTOCOL §4.6, DESIGN §11)


def crash_and_wake(state: life.State, now: datetime) -> life.State:
    """Return what a wake leads to when the actor has been started and has crashed."""
    starting, _ = decide(state, Allocated(RUNNER), now, LIMITS)
    crashed = FromRunner(RUNNER, starting.life.generation, 0, StoppedReport(ok=False))
    asleep, _ = decide(starting, crashed, now, LIMITS)
    assert name(asleep) == "Asleep"
    return decide(asleep, Wake(), now, LIMITS)[0]


def test_attempts_after_failures_wait_0_2_4_8_seconds_and_so_on():
    now, waits, state = NOON, [], PENDING
    for _ in range(11):
        state = crash_and_wake(state, now)
        waits.append((state.due - now) // SECOND if isinstance(state, Backoff) else 0)
        if isinstance(state, Backoff):
            now = state.due
            state, _ = decide(state, Tick(), now, LIMITS)
    assert waits == [0, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512]


def test_a_restart_waits_as_a_wake_does():
    state: life.State = replace(PENDING, life=replace(LIFE, policy=CrashPolicy.RESTART), cause=Cause.RESTART)
    waits, now = [], NOON
    for _ in range(4):
        starting, _ = decide(state, Allocated(RUNNER), now, LIMITS)
        crashed = FromRunner(RUNNER, starting.life.generation, 0, StoppedReport(ok=False))
        state, _ = decide(starting, crashed, now, LIMITS)
        waits.append((state.due - now) // SECOND if isinstance(state, Backoff) else 0)
        if isinstance(state, Backoff):
            now = state.due
            state, _ = decide(state, Tick(), now, LIMITS)
        assert state.cause is Cause.RESTART
    assert waits == [0, 2, 4, 8]


def test_ten_quiet_minutes_make_the_next_attempt_immediate():
    failed = Asleep(replace(LIFE, failure=CRASH, retries=5, retried_at=NOON), NOON)
    before, _ = decide(failed, Wake(), NOON + timedelta(minutes=10) - SECOND, LIMITS)
    after, _ = decide(failed, Wake(), NOON + timedelta(minutes=10), LIMITS)
    assert (name(before), name(after)) == ("Backoff", "Pending")
    assert after.life.retries == 1


def test_waits_are_spread_by_less_than_half_a_second():
    failed = Asleep(replace(LIFE, failure=CRASH, retries=1, retried_at=NOON), NOON)
    moments = [NOON + timedelta(microseconds=microseconds) for microseconds in range(1000)]
    spread = {decide(failed, Wake(), now, LIMITS)[0].due - now - 2 * SECOND for now in moments}
    assert len(spread) > 50
    assert min(spread) >= timedelta()
    assert max(spread) < timedelta(milliseconds=500)


def test_a_want_of_capacity_is_no_failure_that_delays():
    asleep = Asleep(replace(LIFE, failure=NO_CAPACITY, retries=3, retried_at=NOON), NOON)
    assert name(decide(asleep, Wake(), NOON, LIMITS)[0]) == "Pending"


@pytest.mark.parametrize("reason", [StopReason.SLEEP, StopReason.DRAIN, StopReason.RESCHEDULE])
def test_a_graceful_stop_wipes_the_slate(reason):
    troubled = replace(LIFE, failure=None, retries=6, retried_at=NOON)
    state = replace(STOPPING, life=troubled, reason=reason)
    after, _ = decide(state, STOPPED_BADLY, NOON, LIMITS)
    assert (after.life.retries, after.life.retried_at, after.life.failure) == (0, None, None)


def test_a_runner_that_drains_is_nobodys_failure_so_far():
    troubled = replace(RUNNING, life=replace(LIFE, retries=6, retried_at=NOON))
    stopping, _ = decide(troubled, RunnerDraining(RUNNER, NOON + 10 * SECOND), NOON, LIMITS)
    asleep, _ = decide(stopping, TIMED_OUT, NOON + 11 * SECOND, LIMITS)
    assert asleep.life.retries == 0
    assert name(decide(asleep, Wake(), NOON + 11 * SECOND, LIMITS)[0]) == "Pending"


def test_a_reschedule_ends_a_backoff_and_needs_none():
    failed = Asleep(replace(LIFE, failure=CRASH, retries=5, retried_at=NOON), NOON)
    assert name(decide(failed, Reschedule(), NOON, LIMITS)[0]) == "Pending"
    assert name(decide(BACKOFF, Reschedule(), NOON, LIMITS)[0]) == "Pending"


# Alarms (PROTOCOL §4.7, DESIGN §11)

RING = NOON + 10 * SECOND


def with_alarm(state: life.State, at: datetime = RING) -> life.State:
    return replace(state, life=replace(state.life, alarm_at=at))


def test_an_alarm_is_replaced_and_cleared():
    first, _ = decide(RUNNING, report(AlarmReport(RING)), NOON, LIMITS)
    second, _ = decide(first, report(AlarmReport(RING + SECOND), index=8), NOON, LIMITS)
    cleared, _ = decide(second, report(AlarmReport(None), index=9), NOON, LIMITS)
    assert [state.life.alarm_at for state in (first, second, cleared)] == [RING, RING + SECOND, None]


def test_an_alarm_wakes_a_sleeper_when_it_is_due_and_not_before():
    asleep = with_alarm(ASLEEP)
    assert due_at(asleep) == RING
    assert decide(asleep, Tick(), RING - timedelta(microseconds=1), LIMITS) == (asleep, [])
    after, effects = decide(asleep, Tick(), RING, LIMITS)
    assert effects == [Allocate()]
    assert (after.cause, after.gives_up_at, after.life.alarm_at) == (Cause.ALARM, None, RING)


def test_an_alarm_that_comes_due_while_the_actor_runs_is_its_own_affair():
    running = with_alarm(RUNNING)
    assert due_at(running) == RING
    after, effects = decide(running, Tick(), RING, LIMITS)
    assert (name(after), effects, after.life.alarm_at) == ("Running", [], None)
    stopping, _ = decide(after, report(SleepIntent()), RING, LIMITS)
    asleep, _ = decide(stopping, STOPPED_LATER, RING + SECOND, LIMITS)
    assert (name(asleep), due_at(asleep)) == ("Asleep", None)


def test_an_alarm_kept_for_the_time_asleep_survives_the_stop():
    stopping, _ = decide(with_alarm(RUNNING), report(SleepIntent()), NOON, LIMITS)
    asleep, _ = decide(stopping, STOPPED_LATER, NOON + SECOND, LIMITS)
    assert (name(asleep), due_at(asleep)) == ("Asleep", RING)


@pytest.mark.parametrize("ticked", [False, True])
def test_an_alarm_due_between_the_intent_and_the_stop_wakes_right_after_and_for_as_long_as_it_takes(ticked):
    state: life.State = with_alarm(STOPPING)
    if ticked:
        state, effects = decide(state, Tick(), RING, LIMITS)
        assert effects == []
    after, effects = decide(state, STOPPED_BADLY, RING + SECOND, LIMITS)
    assert effects == [*effects_of("Deallocate Bump Stopped"), Allocate()]
    assert (after.cause, after.gives_up_at, after.life.alarm_at) == (Cause.ALARM, None, RING)


@pytest.mark.parametrize("ago", [timedelta(), SECOND])
def test_an_alarm_that_was_due_when_it_was_set_wakes_as_soon_as_the_actor_is_asleep(ago):
    running, _ = decide(RUNNING, report(AlarmReport(NOON - ago)), NOON, LIMITS)
    assert due_at(running) == RUNNING.due
    running, _ = decide(running, Tick(), NOON, LIMITS)
    stopping, _ = decide(running, report(SleepIntent(), index=8), NOON, LIMITS)
    after, _ = decide(stopping, report(StoppedReport(ok=False), index=9), NOON, LIMITS)
    assert (name(after), after.life.alarm_at, after.life.alarm_overdue) == ("Pending", NOON - ago, False)


@pytest.mark.parametrize(
    ("end", "wakes"),
    [
        (RunnerLost(RUNNER, RING - SECOND), True),
        (RunnerLost(RUNNER, RING + SECOND), False),
        (Missing(RUNNER, G), True),
        (STOPPED_BADLY, False),
    ],
)
def test_an_alarm_that_came_due_when_the_runner_was_in_fact_gone_counts(end, wakes):
    consumed, _ = decide(with_alarm(RUNNING), Tick(), RING, LIMITS)
    after, _ = decide(consumed, end, RING + 16 * SECOND, LIMITS)
    assert (name(after) == "Pending") is wakes
    assert after.life.alarm_at == (RING if wakes else None)


@pytest.mark.parametrize("ticked", [False, True])
@pytest.mark.parametrize(
    ("said_after", "wakes"), [(-SECOND, True), (0 * SECOND, False), (SECOND, False)], ids=["before", "at", "after"]
)
@pytest.mark.parametrize("end", [SleepIntent(), StoppedReport(ok=False)], ids=name)
def test_an_alarm_is_spent_if_it_came_due_before_the_actor_said_its_last_and_however_late_that_is_heard(
    end, said_after, wakes, ticked
):
    state: life.State = with_alarm(RUNNING)
    if ticked:
        state, _ = decide(state, Tick(), RING + SECOND, LIMITS)
    after, _ = decide(state, report(end, heard_at=RING + said_after), RING + 2 * SECOND, LIMITS)
    if isinstance(end, SleepIntent):
        after, _ = decide(after, STOPPED_LATER, RING + 3 * SECOND, LIMITS)
    assert name(after) == ("Pending" if wakes else "Asleep")
    assert after.life.alarm_at == (RING if wakes else None)


@pytest.mark.parametrize("order", [Sleep(), RunnerDraining(RUNNER, RING + 9 * SECOND)], ids=name)
def test_an_alarm_that_came_due_just_before_the_engine_had_the_actor_stopped_is_spent(order):
    stopping, _ = decide(with_alarm(RUNNING), order, RING, LIMITS)
    after, _ = decide(stopping, STOPPED_LATER, RING + SECOND, LIMITS)
    assert (name(after), due_at(after)) == ("Asleep", None)


def test_an_alarm_due_while_the_actor_waits_or_starts_is_not_lost_if_that_fails():
    starting = with_alarm(STARTING)
    assert due_at(starting) == STARTING.due
    after, _ = decide(starting, Tick(), STARTING.due, LIMITS)
    assert (after.cause, after.life.alarm_at) == (Cause.ALARM, RING)
    after, effects = decide(with_alarm(PENDING), Tick(), PENDING.gives_up_at, LIMITS)
    assert effects == [Bump(), Allocate()]
    assert (after.cause, after.gives_up_at, after.life.alarm_at) == (Cause.ALARM, None, RING)


@pytest.mark.parametrize(
    "end",
    [
        pytest.param([Tick()], id="has not answered in time"),
        pytest.param([RunnerLost(RUNNER, RING)], id="was lost"),
        pytest.param([Missing(RUNNER, G)], id="does not know the actor"),
        pytest.param([report(StoppedReport(ok=False))], id="had it crash at once"),
        pytest.param([RunnerDraining(RUNNER, RING + SECOND), STOPPED_BADLY], id="was told to end"),
        pytest.param([Sleep(), STOPPED_BADLY], id="was told to put it to sleep"),
    ],
)
def test_an_alarm_rings_again_if_the_life_it_began_never_ran_as_its_runner(end):
    starting = with_alarm(STARTING)
    later = STARTING.due
    for signal in end:
        starting, _ = decide(starting, signal, later, LIMITS)
    assert (starting.cause, starting.life.alarm_at) == (Cause.ALARM, RING)


def test_an_alarm_is_spent_by_the_life_that_runs_for_it():
    running, effects = decide(with_alarm(STARTING), report(RunningReport()), RING, LIMITS)
    assert (running.life.alarm_at, running.life.alarm_spent_at) == (None, RING)
    assert [name(effect) for effect in effects] == ["PublishReady"]
    early, _ = decide(with_alarm(STARTING), report(RunningReport()), NOON, LIMITS)
    assert early.life.alarm_at == RING


# Nothing stale (I1, I2)


@pytest.mark.parametrize(
    "what", [RunningReport(), SleepIntent(), StopIntent(), StoppedReport(True), AlarmReport(NOON)], ids=name
)
@pytest.mark.parametrize("state", HOSTED, ids=name)
def test_an_event_of_another_runner_or_generation_or_seen_before_is_nothing(state, what):
    for event in (
        report(what, runner_id=OTHER),
        report(what, generation=G - 1),
        report(what, generation=G + 1),
        report(what, index=state.event_index),
        report(what, index=-1),
    ):
        assert decide(state, event, NOON, LIMITS) == (state, [])


@pytest.mark.parametrize("state", HOSTED, ids=name)
def test_the_fate_of_another_runner_is_nothing(state):
    for signal in (
        RunnerLost(OTHER, NOON),
        Missing(OTHER, G),
        Missing(RUNNER, G - 1),
        RunnerDraining(OTHER, NOON),
    ):
        assert decide(state, signal, NOON, LIMITS) == (state, [])


@pytest.mark.parametrize("state", [STARTING, RUNNING, STOPPING], ids=name)
def test_gaps_in_the_events_are_accepted(state):
    after, _ = decide(state, report(AlarmReport(RING), index=250), NOON, LIMITS)
    assert after.event_index == 250


@pytest.mark.parametrize(
    "what", [RunningReport(), SleepIntent(), StopIntent(), StoppedReport(True), AlarmReport(NOON)], ids=name
)
@pytest.mark.parametrize("state", HOSTED, ids=name)
def test_an_event_waits_for_the_one_before_it(state, what):
    """Decided first, it would make a repetition of the other."""
    before, index = state.event_index + 2, state.event_index + 3
    assert decide(state, report(what, index=index, after=before), NOON, LIMITS) == (state, [])
    caught_up, _ = decide(state, report(AlarmReport(None), index=before, after=state.event_index), NOON, LIMITS)
    assert caught_up.event_index == before
    assert decide(caught_up, report(what, index=index, after=before), NOON, LIMITS) != (caught_up, [])
