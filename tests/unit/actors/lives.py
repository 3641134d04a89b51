"""What an actor's life is made of, for Hypothesis, and walks through whole lives."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from actors import life
from actors.lifecycle import decide

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = life.Limits(start=timedelta(seconds=30), stop=timedelta(minutes=30), pending=timedelta(seconds=60))

runner_ids = st.sampled_from(["runner-1", "runner-2"])
generations = st.integers(0, 4)
moments = st.integers(-3_000, 3_000).map(lambda seconds: NOON + timedelta(seconds=seconds))
failures = st.builds(
    life.Failure,
    st.sampled_from(life.FailureKind),
    runner_id=st.none() | runner_ids,
    message=st.none() | st.text(max_size=5),
)
reports = st.one_of(
    st.just(life.RunningReport()),
    st.just(life.SleepIntent()),
    st.just(life.StopIntent()),
    st.builds(life.StoppedReport, st.booleans(), st.none() | st.text(max_size=5)),
    st.builds(life.AlarmReport, st.none() | moments),
)
indexes = st.integers(-1, 6)
signals = st.one_of(
    st.just(life.Start()),
    st.builds(life.Wake, st.none() | st.text(max_size=5), st.booleans()),
    st.just(life.SlotFree()),
    st.builds(life.Allocated, runner_ids, st.booleans()),
    st.builds(life.NoSlot, st.booleans()),
    st.builds(
        life.FromRunner, runner_ids, generations, indexes, reports, st.none() | moments, st.none() | indexes
    ),
    st.builds(life.RunnerLost, runner_ids, moments, st.sampled_from(life.FailureKind)),
    st.builds(life.Missing, runner_ids, generations),
    st.builds(life.RunnerDraining, runner_ids, moments),
    st.just(life.Sleep()),
    st.just(life.Reschedule()),
    st.just(life.Destroy()),
    st.just(life.Tick()),
)


@dataclass(frozen=True)
class Step:
    """One signal of a walk, and what came of it."""

    before: life.State
    signal: life.Signal
    now: datetime
    after: life.State
    effects: list[life.Effect]


_PAUSES_MS = (0, 1, 500, 2_000, 5_000, 16_000, 31_000, 61_000, 601_000, 1_900_000)
_KINDS = 16


def _signal(kind: int, variant: int, now: datetime, state: life.State) -> life.Signal:
    """Return what is heard next; what runners say is right and new three times out of four."""
    hosted = isinstance(state, life.Hosted)
    runner_id = state.runner_id if hosted and variant % 4 else "runner-2"
    generation = state.life.generation if variant % 8 else state.life.generation - 1
    index = state.event_index + 1 + variant % 3 if hosted and variant % 5 else variant % 3 - 1
    at = now + timedelta(seconds=variant % 32 - 8)
    heard_at = now - timedelta(seconds=variant % 7) if variant % 3 else None
    match kind:
        case 0:
            return life.Start()
        case 1 | 2:
            return life.Wake(again=variant % 2 == 1)
        case 3:
            return life.SlotFree()
        case 4 | 5:
            return life.FromRunner(runner_id, generation, index, life.RunningReport())
        case 6:
            return life.FromRunner(runner_id, generation, index, life.SleepIntent(), heard_at)
        case 7:
            return life.FromRunner(runner_id, generation, index, life.StopIntent())
        case 8:
            stopped = life.StoppedReport(ok=variant % 16 == 15)
            return life.FromRunner(runner_id, generation, index, stopped, heard_at)
        case 9:
            return life.FromRunner(runner_id, generation, index, life.AlarmReport(at if variant % 6 else None))
        case 10:
            return life.RunnerLost(runner_id, now - timedelta(seconds=variant % 20))
        case 11:
            return life.Missing(runner_id, generation)
        case 12:
            return life.RunnerDraining(runner_id, at)
        case 13:
            return life.Sleep() if variant % 2 else life.Reschedule()
        case 14 if variant == 255:
            return life.Destroy()
        case _:
            return life.Tick()


def walk(choices: bytes) -> list[Step]:
    """Lead a life as the workflow does, three bytes a signal: each Allocate is answered at once."""
    policy = list(life.CrashPolicy)[choices[0] % 3]
    state: life.State = life.Created(life.Life(policy), NOON)
    now, steps = NOON, []
    for kind, variant, luck in zip(choices[1::3], choices[2::3], choices[3::3], strict=False):
        now += timedelta(milliseconds=_PAUSES_MS[luck % len(_PAUSES_MS)])
        for step in _heard(state, _signal(kind % _KINDS, variant, now, state), now, luck):
            steps.append(step)
            state = step.after
    return steps


def _heard(state: life.State, signal: life.Signal, now: datetime, luck: int) -> Iterator[Step]:
    after, effects = decide(state, signal, now, LIMITS)
    yield Step(state, signal, now, after, effects)
    if life.Allocate() in effects:
        runner_id, called = "runner-1" if luck % 2 else "runner-2", luck % 16 > 7
        answer = life.Allocated(runner_id, called) if luck % 3 else life.NoSlot(on_demand=called)
        yield from _heard(after, answer, now, luck)


choices = st.binary(min_size=91, max_size=151)
"""What decides a walk: thirty signals at least, of three bytes each."""
