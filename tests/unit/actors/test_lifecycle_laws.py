"""What holds in every life an actor can lead (DESIGN §9)."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, strategies as st

from actors import life
from actors.lifecycle import decide, due_at
from tests.unit.actors.lives import LIMITS, NOON, choices, failures, moments, reports, walk


@given(choices)
def test_generations_grow_by_one_at_each_allocation_and_never_else(choices):
    """I1."""
    for step in walk(choices):
        allocated = isinstance(step.before, life.Pending) and isinstance(step.signal, life.Allocated)
        grown = step.after.life.generation - step.before.life.generation
        assert grown == (1 if allocated else 0)
        assert [effect for effect in step.effects if isinstance(effect, life.Dispatch)] == (
            [life.Dispatch(step.signal.runner_id, step.after.life.generation)] if allocated else []
        )


@given(choices)
def test_whoever_waits_for_something_has_a_deadline(choices):
    """I4."""
    for step in walk(choices):
        due = due_at(step.after)
        match step.after:
            case life.Destroyed():
                assert due is None
            case life.Asleep(mine):
                assert due == mine.alarm_at
            case _:
                assert due is not None


@given(choices)
def test_every_deadline_leads_on_by_itself(choices):
    """I4: an actor nobody speaks of settles: each Tick at its deadline ends the state or moves the deadline."""
    state = walk(choices)[-1].after
    for _ in range(20):
        due = due_at(state)
        if due is None:
            return
        after, effects = decide(state, life.Tick(), due, LIMITS)
        assert type(after) is not type(state) or due_at(after) != due
        state = after
        if life.Allocate() in effects:
            state, _ = decide(state, life.NoSlot(on_demand=True), due, LIMITS)


@given(choices)
def test_a_slot_is_held_from_the_start_to_the_end_of_a_generation(choices):
    """I9."""
    held: list[str] = []
    for step in walk(choices):
        for effect in step.effects:
            match effect:
                case life.Dispatch(runner_id):
                    held.append(runner_id)
                case life.Deallocate(runner_id):
                    held.remove(runner_id)
        assert held == ([step.after.runner_id] if isinstance(step.after, life.Hosted) else [])


@given(choices)
def test_the_end_of_a_generation_is_told_once_and_its_stop_commanded_at_most_once(choices):
    stops: list[int] = []
    for step in walk(choices):
        stops += [effect.generation for effect in step.effects if isinstance(effect, life.Halt)]
        ended = isinstance(step.before, life.Hosted) and not isinstance(step.after, life.Hosted)
        ends = [life.PublishStopped(step.before.life.generation), life.PublishDestroyed()]
        assert sum(step.effects.count(end) for end in ends) == (
            1 if ended or type(step.before) is not type(step.after) is life.Destroyed else 0
        )
    assert len(stops) == len(set(stops))


@given(choices)
def test_what_stops_was_told_to(choices):
    for step in walk(choices):
        if isinstance(step.after, life.Stopping) and not isinstance(step.before, life.Stopping):
            assert life.Halt(step.after.runner_id, step.after.life.generation) in step.effects


@given(choices)
def test_the_gateway_is_told_of_a_stop_before_the_runner_is(choices):
    """I5: nothing is sent any more to a life that is about to be stopped."""
    for step in walk(choices):
        stops = isinstance(step.after, life.Stopping) and not isinstance(step.before, life.Stopping)
        generation = step.after.life.generation
        told = [effect for effect in step.effects if isinstance(effect, life.PublishStopping | life.Halt)]
        if stops:
            assert told == [life.PublishStopping(generation), life.Halt(step.after.runner_id, generation)]


@given(choices)
def test_whoever_is_called_while_it_stops_is_served_by_the_next_generation(choices):
    """I3: the call is answered by a later life, or its actor is no more."""
    called = False
    for step in walk(choices):
        if called and not isinstance(step.after, life.Stopping):
            assert isinstance(step.after, life.Pending | life.Backoff | life.Destroyed)
        called = isinstance(step.after, life.Stopping) and (called or isinstance(step.signal, life.Wake))


@given(choices)
def test_ready_is_told_only_of_an_actor_that_runs(choices):
    for step in walk(choices):
        for effect in step.effects:
            if isinstance(effect, life.PublishReady):
                assert isinstance(step.after, life.Running)
                assert effect == life.PublishReady(step.after.runner_id, step.after.life.generation)


@given(choices)
def test_a_signal_delivered_twice_acts_once(choices):
    """A call is answered again, and a second look for a slot may find one; nothing else happens twice."""
    for step in walk(choices):
        after, effects = decide(step.after, step.signal, step.now, LIMITS)
        match step.signal:
            case life.SlotFree() if isinstance(after, life.Pending):
                assert effects == [life.Allocate()]
            case life.Wake() if isinstance(after, life.Running):
                assert effects == [life.PublishReady(after.runner_id, after.life.generation)]
            case life.NoSlot() if isinstance(after, life.Pending):
                assert effects == [life.Bump()]
            case _:
                assert effects == []
        assert after == step.after


@given(choices, st.integers(-2, 3), reports, st.booleans())
def test_nothing_of_another_runner_or_generation_is_applied(choices, off, what, other_runner):
    """I2."""
    last = walk(choices)[-1]
    state = last.after
    runner_id = state.runner_id if isinstance(state, life.Hosted) else "runner-1"
    generation = state.life.generation
    if other_runner:
        runner_id = "somebody else"
    else:
        generation += off or 1
    now = last.now
    stale = [
        life.FromRunner(runner_id, generation, 1_000, what),
        life.Missing(runner_id, generation),
    ]
    if other_runner:
        stale += [life.RunnerLost(runner_id, now), life.RunnerDraining(runner_id, now)]
    for signal in stale:
        assert decide(state, signal, now, LIMITS) == (state, [])


@given(
    policy=st.sampled_from(life.CrashPolicy),
    failure=st.none() | failures,
    retries=st.integers(0, 20),
    retried_at=st.none() | moments,
    ok=st.booleans(),
    again_after_ms=st.integers(0, 5_000),
)
def test_a_graceful_sleep_costs_the_next_wake_nothing(policy, failure, retries, retried_at, ok, again_after_ms):
    """I14."""
    mine = life.Life(policy, 3, failure=failure, retries=retries, retried_at=retried_at)
    running = life.Running(mine, "runner-1", 0, NOON, NOON + timedelta(minutes=5))

    stopping, _ = decide(running, life.FromRunner("runner-1", 3, 1, life.SleepIntent()), NOON, LIMITS)
    stopped = life.FromRunner("runner-1", 3, 2, life.StoppedReport(ok))
    asleep, _ = decide(stopping, stopped, NOON, LIMITS)
    called_at = NOON + timedelta(milliseconds=again_after_ms)
    called, effects = decide(asleep, life.Wake(), called_at, LIMITS)

    assert isinstance(called, life.Pending)
    assert effects == [life.Allocate()]
    deferred, _ = decide(replace(stopping, wake_after=True), stopped, called_at, LIMITS)
    assert isinstance(deferred, life.Pending)


@given(choices)
def test_no_alarm_rings_early_and_none_is_lost_asleep(choices):
    """I11."""
    for step in walk(choices):
        if isinstance(step.after, life.Pending) and not isinstance(step.before, life.Pending):
            alarm = step.before.life.alarm_at
            if step.after.cause is life.Cause.ALARM and not isinstance(step.before, life.Backoff):
                assert (alarm or step.before.life.alarm_spent_at) <= step.now
        if isinstance(step.after, life.Asleep):
            assert (
                step.after.life.alarm_at is None
                or step.after.life.alarm_at > step.now
                or (isinstance(step.before, life.Asleep))
            )
