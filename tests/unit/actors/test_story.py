"""The arrows of DESIGN §1, as an actor's part of them is told."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given

from actors import life
from actors.codec import decode_signal
from actors.lifecycle import decide
from actors.story import tell
from tests.unit.actors.lives import LIMITS, NOON, choices, walk

ACTOR_ID = "actor-1"
SERVERLESS = life.NoSlot(on_demand=True)
CREATED = life.Created(life.Life(life.CrashPolicy.SLEEP), NOON)
ASLEEP = life.Asleep(life.Life(life.CrashPolicy.SLEEP, generation=3), NOON)


def says(report: life.Report, index: int, generation: int = 4, runner_id: str = "R1") -> life.FromRunner:
    return life.FromRunner(runner_id, generation, index, report)


def told(state: life.State, *signals: life.Signal) -> tuple[life.State, list[str]]:
    """Return the state after the signals, and the arrows as `source > via > target: label`."""
    arrows = []
    for signal in signals:
        after, effects = decide(state, signal, NOON, LIMITS)
        arrows += tell(ACTOR_ID, signal, state, after, effects)
        state = after
    assert {arrow.actor_id for arrow in arrows} <= {ACTOR_ID}
    return state, [" > ".join([a.source, *a.via, a.target]) + ": " + a.label for a in arrows]


def test_the_ideal_flow_is_told():
    _, arrows = told(
        ASLEEP,
        life.Wake("GET /"),
        SERVERLESS,
        life.SlotFree(),
        life.Allocated("R1", called=True),
        says(life.RunningReport(), 0),
    )
    assert arrows == [
        "User > Gateway: GET /",
        "Gateway > Actor workflow: wake",
        "Actor workflow > Actor workflow: allocate: no runner free, pending",
        "Actor workflow > Serverless: bump",
        "Runner workflow > Actor workflow: allocate pending",
        "Actor workflow > Runner workflow > Runner WS > Runner: StartActor",
        "Runner > Runner WS > Runner workflow > Actor workflow: running",
        "Actor workflow > Gateway: ready",
    ]


MESSY_FLOW = [
    (
        "asleep, and a runner has a slot",
        [life.Wake("GET /sleep"), life.Allocated("R1"), says(life.RunningReport(), 0)],
        [
            "User > Gateway: GET /sleep",
            "Gateway > Actor workflow: wake",
            "Actor workflow > Actor workflow: allocate",
            "Actor workflow > Runner workflow > Runner WS > Runner: StartActor",
            "Runner > Runner WS > Runner workflow > Actor workflow: running",
            "Actor workflow > Gateway: ready",
        ],
    ),
    (
        "two intents to sleep",
        [says(life.SleepIntent(), 1), says(life.SleepIntent(), 2)],
        [
            "Runner > Runner WS > Runner workflow > Actor workflow: intent: sleep",
            "Actor workflow > Runner workflow > Runner WS > Runner: StopActor",
            "Runner > Runner WS > Runner workflow > Actor workflow: intent: sleep (ignored, it stops already)",
        ],
    ),
    (
        "a request while it stops",
        [life.Wake("GET /")],
        ["User > Gateway: GET /", "Gateway > Actor workflow: wake (deferred until stopped)"],
    ),
    (
        "it has stopped, and is allocated again at once",
        [says(life.StoppedReport(ok=False), 3), life.Allocated("R1"), life.Wake(again=True)],
        [
            "Runner > Runner WS > Runner workflow > Actor workflow: stopped",
            "Actor workflow > Actor workflow: deallocate",
            "Actor workflow > Serverless: bump",
            "Actor workflow > Gateway: stopped",
            "Actor workflow > Actor workflow: allocate",
            "Actor workflow > Runner workflow > Runner WS > Runner: StartActor",
        ],
    ),
    (
        "the gateway has heard of the stop and tries the wake again",
        [life.Wake(), says(life.RunningReport(), 0, generation=5)],
        [
            "Gateway > Actor workflow: wake (ignored, already allocated)",
            "Runner > Runner WS > Runner workflow > Actor workflow: running",
            "Actor workflow > Gateway: ready",
        ],
    ),
    (
        "its runner is stopped, and it does not stop in time",
        [
            life.RunnerDraining("R1", NOON + timedelta(seconds=10)),
            life.RunnerLost("R1", NOON, life.FailureKind.RUNNER_DRAINING_TIMEOUT),
        ],
        [
            "Runner workflow > Actor workflow: runner draining",
            "Actor workflow > Runner workflow > Runner WS > Runner: StopActor",
            "Runner workflow > Actor workflow: runner lost",
            "Actor workflow > Actor workflow: deallocate",
            "Actor workflow > Serverless: bump",
            "Actor workflow > Gateway: stopped",
        ],
    ),
    (
        "the gateway tries again; a second runner has to come",
        [
            life.Wake(),
            SERVERLESS,
            life.Tick(),
            SERVERLESS,
            life.SlotFree(),
            life.Allocated("R2", called=True),
            says(life.RunningReport(), 0, generation=6, runner_id="R2"),
        ],
        [
            "Gateway > Actor workflow: wake",
            "Actor workflow > Actor workflow: allocate: no runner free, pending",
            "Actor workflow > Serverless: bump",
            "Runner workflow > Actor workflow: allocate pending",
            "Actor workflow > Runner workflow > Runner WS > Runner: StartActor",
            "Runner > Runner WS > Runner workflow > Actor workflow: running",
            "Actor workflow > Gateway: ready",
        ],
    ),
]


def test_the_messy_flow_is_told_in_one_run():
    state: life.State = ASLEEP
    for act, signals, expected in MESSY_FLOW:
        state, arrows = told(state, *signals)
        assert arrows == expected, act


@pytest.mark.parametrize(
    ("state", "signals", "expected"),
    [
        (CREATED, [life.Start(), life.NoSlot(on_demand=False)], ["create", "allocate: no runner free, asleep"]),
        (CREATED, [life.Tick()], ["create (its first signal was lost)"]),
        (CREATED, [life.SlotFree()], ["pending"]),
        (ASLEEP, [life.Reschedule()], ["reschedule"]),
        (ASLEEP, [life.Destroy()], ["destroy", "destroyed"]),
        (
            ASLEEP,
            [life.Destroy(), life.Wake("GET /")],
            ["destroy", "destroyed", "GET /", "wake (ignored, destroyed)"],
        ),
        (
            ASLEEP,
            [life.Wake(), SERVERLESS, life.Wake("GET /2")],
            ["wake", "allocate: no runner free, pending", "bump", "GET /2", "wake (waits already)"],
        ),
    ],
)
def test_other_signals_have_their_words(state, signals, expected):
    _, arrows = told(state, *signals)
    assert [arrow.split(": ", 1)[1] for arrow in arrows] == expected


RUNNING = life.Running(ASLEEP.life, "R1", 0, NOON, NOON)


@pytest.mark.parametrize(
    ("state", "signal", "expected"),
    [
        (RUNNING, life.Tick(), []),
        (RUNNING, says(life.RunningReport(), 7, 2), []),
        (RUNNING, says(life.RunningReport(), 0, 3), []),
        (RUNNING, life.Start(), []),
        (RUNNING, says(life.AlarmReport(None), 1, 3), ["alarm set"]),
        (RUNNING, says(life.RunningReport(), 1, 3), ["running (ignored)"]),
        (RUNNING, life.Wake(again=True), ["ready"]),
        (replace(RUNNING, life=replace(RUNNING.life, alarm_at=NOON)), life.Tick(), ["alarm due, it runs"]),
        (replace(ASLEEP, life=replace(ASLEEP.life, alarm_at=NOON)), life.Tick(), ["alarm due"]),
        (
            life.Stopping(RUNNING.life, "R1", 0, None, life.StopReason.SLEEP, NOON, wake_after=False),
            life.Wake(again=True),
            ["wake (deferred until stopped)"],
        ),
        (
            life.Stopping(RUNNING.life, "R1", 0, None, life.StopReason.SLEEP, NOON, wake_after=True),
            life.Wake(again=True),
            [],
        ),
    ],
)
def test_what_changes_nothing_is_not_told(state, signal, expected):
    _, arrows = told(state, signal)
    assert [arrow.split(": ", 1)[1] for arrow in arrows] == expected


def test_an_arrow_names_its_generation_once_there_is_one():
    pending, effects = decide(CREATED, life.Start(), NOON, LIMITS)
    assert [arrow.generation for arrow in tell(ACTOR_ID, life.Start(), CREATED, pending, effects)] == [None]
    given_one = life.Allocated("R1")
    starting, effects = decide(pending, given_one, NOON, LIMITS)
    assert {arrow.generation for arrow in tell(ACTOR_ID, given_one, pending, starting, effects)} == {0}


def test_arrows_to_and_from_a_runner_are_the_runners_too():
    _, effects = decide(ASLEEP, life.Wake(), NOON, LIMITS)
    pending = life.Pending(ASLEEP.life, NOON, life.Cause.WAKE, NOON, None)
    starting, effects = decide(pending, life.Allocated("R1"), NOON, LIMITS)
    arrows = tell(ACTOR_ID, life.Allocated("R1"), pending, starting, effects)
    assert [(arrow.label, arrow.runner_id) for arrow in arrows] == [("allocate", ""), ("StartActor", "R1")]
    assert arrows[0].data["runner_id"] == "R1"


@given(choices)
def test_replaying_the_arrows_gives_the_actor(choices):
    """I16. Deadlines aside, which move without being told as a waiting actor looks again."""
    steps = walk(choices)
    kept = [
        (arrow.data["signal"], arrow.data["state"], step.now)
        for step in steps
        for arrow in tell(ACTOR_ID, step.signal, step.before, step.after, step.effects)
        if "signal" in arrow.data
    ]

    state = steps[0].before
    for encoded, name, now in kept:
        state, _ = decide(state, decode_signal(encoded), now, LIMITS)
        assert type(state).__name__.lower() == name

    assert essence(state) == essence(steps[-1].after)


def essence(state: life.State) -> object:
    match state:
        case life.Created(mine) | life.Asleep(mine) | life.Destroyed(mine):
            return type(state), mine
        case life.Pending(mine, since, cause):
            return type(state), mine, since, cause
        case life.Backoff(mine, cause, due):
            return type(state), mine, cause, due
        case life.Starting(mine, runner_id, index, due):
            return type(state), mine, runner_id, index, due
        case life.Running(mine, runner_id, index, connectable_at):
            return type(state), mine, runner_id, index, connectable_at
        case life.Stopping(mine, runner_id, index, connectable_at, reason, due, wake_after):
            return type(state), mine, runner_id, index, connectable_at, reason, due, wake_after
