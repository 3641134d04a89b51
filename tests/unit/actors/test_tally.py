"""What steps of an actor's life count for."""

from datetime import UTC, datetime, timedelta

import pytest

from actors.life import (
    Allocated,
    Asleep,
    Cause,
    CrashPolicy,
    Failure,
    FailureKind,
    Life,
    Limits,
    NoSlot,
    Pending,
    RunnerLost,
    Running,
    RunningReport,
    Starting,
    Stopping,
    StopReason,
    Tick,
    Wake,
)
from actors.tally import Tally, tally

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LIMITS = Limits(start=30 * SECOND, stop=60 * SECOND, pending=60 * SECOND)
LIFE = Life(CrashPolicy.SLEEP, generation=3)
LOST = Life(CrashPolicy.RESTART, generation=3, retries=2, failure=Failure(FailureKind.RUNNER_CONNECTION_LOST))

PENDING = Pending(LIFE, NOON - 2 * SECOND, Cause.WAKE, NOON, None)
STARTING = Starting(LIFE, "runner", -1, NOON + 25 * SECOND)
RUNNING = Running(LIFE, "runner", 0, NOON, NOON)
STOPPING = Stopping(LIFE, "runner", 0, NOON, StopReason.SLEEP, NOON, False)


@pytest.mark.parametrize(
    ("before", "signal", "after", "counted"),
    [
        (PENDING, Allocated("runner"), STARTING, Tally(wake=("wake", "allocated"), phase=("allocate", 2.0))),
        (STARTING, RunningReport(), RUNNING, Tally(phase=("start_actor", 5.0))),
        (PENDING, Tick(), Asleep(LIFE, NOON), Tally(wake=("wake", "gave_up"), slept=True)),
        (
            STOPPING,
            Wake(),
            Stopping(LIFE, "runner", 0, NOON, StopReason.SLEEP, NOON, True),
            Tally(("wake", "deferred")),
        ),
        (
            RUNNING,
            RunnerLost("runner", NOON),
            Asleep(LOST, NOON),
            Tally(failure="runner_connection_lost", retried=True, slept=True),
        ),
        (PENDING, NoSlot(True), PENDING, None),
        (STARTING, Wake(), STARTING, None),
        (RUNNING, Tick(), Running(LIFE, "runner", 0, NOON, NOON + SECOND), None),
    ],
    ids=["allocated", "running", "gave up", "deferred", "lost", "no slot", "ignored", "audit"],
)
def test_a_step_counts_for(before, signal, after, counted):
    assert tally(before, signal, after, NOON, LIMITS) == counted
