"""How a serverless pool hears of its `/start` requests (PROTOCOL §7.3, §7.5)."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from runners.pool import Bump, DrainRunner, Ended, Opened, Ready, Retry, RunnerGone, State, hear
from runners.pool_plan import AUDIT, plan
from tests.unit.runners.pool_cases import (
    CLOSING,
    CONFIG,
    DRAINING,
    EMPTY,
    GRACE,
    HTTP_500,
    NOON,
    OPEN,
    READY,
    SECOND,
    STARTING,
    let_go,
    made_pools,
    pool,
    request,
    states,
)

# The life of one request (PROTOCOL §7.5)


@pytest.mark.parametrize("state", [STARTING, OPEN, READY, DRAINING])
def test_the_request_of_a_runner_that_is_gone_is_closed(state):
    before = pool(request("a", state, runner_id="runner-a"), request("b", READY))
    after, effects = hear(before, RunnerGone("runner-a"), CONFIG, NOON)
    assert (states(after), effects) == ({"a": "closing", "b": "ready"}, [])
    assert plan(after, CONFIG, 2, {}, NOON).effects == ()
    assert hear(before, RunnerGone("runner-x"), CONFIG, NOON) == (before, [])


def test_a_request_is_open_then_ready():
    opened, effects = hear(pool(request("a", STARTING)), Opened("a", 200), CONFIG, NOON)
    assert (states(opened), effects) == ({"a": "open"}, [])
    assert (opened.requests["a"].status, opened.requests["a"].opened_at) == (200, NOON)
    ready, effects = hear(opened, Ready("a", "runner-a"), CONFIG, NOON + SECOND)
    assert (states(ready), effects) == ({"a": "ready"}, [])
    assert (ready.requests["a"].runner_id, ready.requests["a"].ready_at) == ("runner-a", NOON + SECOND)


@pytest.mark.parametrize(("told", "known"), [(-SECOND, -SECOND), (SECOND, timedelta())], ids=["earlier", "ahead"])
def test_a_stream_was_open_when_its_connector_says_and_never_later_than_now(told, known):
    opened, _ = hear(pool(request("a", STARTING)), Opened("a", 200, NOON + told), CONFIG, NOON)
    assert opened.requests["a"].opened_at == NOON + known


def test_only_the_first_payload_counts():
    ready, _ = hear(pool(request("a", OPEN)), Ready("a", "runner-a"), CONFIG, NOON)
    assert hear(ready, Ready("a", "runner-b"), CONFIG, NOON) == (ready, [])


def test_a_runner_that_comes_when_its_request_was_let_go_is_not_sent_away_as_it_may_have_an_actor():
    after, effects = hear(pool(let_go("a")), Ready("a", "runner-a"), CONFIG, NOON)
    assert effects == []
    assert (states(after), after.requests["a"].ready_at) == ({"a": "ready"}, NOON)
    assert (after.requests["a"].drain_at, after.requests["a"].close_at) == (None, None)


@pytest.mark.parametrize(
    ("one", "config"),
    [
        (let_go("a"), replace(CONFIG, epoch=2)),
        (let_go("a"), replace(CONFIG, wanted=False)),
        (let_go("a", age=890), CONFIG),
    ],
)
def test_a_runner_that_comes_too_late_to_stay_is_drained_within_what_is_left_of_the_grace(one, config):
    after, effects = hear(pool(one), Ready("a", "runner-a"), config, NOON)
    assert (states(after), effects) == ({"a": "draining"}, [DrainRunner("runner-a", 5 * SECOND)])


def test_that_a_request_is_open_is_known_also_if_it_was_let_go():
    opened, effects = hear(pool(let_go("a")), Opened("a", 200), CONFIG, NOON)
    assert (states(opened), effects) == ({"a": "draining"}, [])
    assert (opened.requests["a"].status, opened.requests["a"].opened_at) == (200, NOON)


def test_a_runner_that_comes_when_its_request_is_to_be_closed_is_drained_at_once():
    after, effects = hear(pool(request("a", CLOSING)), Ready("a", "runner-a"), CONFIG, NOON)
    assert (states(after), effects) == ({"a": "closing"}, [DrainRunner("runner-a", timedelta())])


# Failures (PROTOCOL §7.3)


@pytest.mark.parametrize("state", [STARTING, OPEN])
@pytest.mark.parametrize(
    ("reported", "error"), [(HTTP_500, HTTP_500), (None, "serverless_stream_ended_early"), ("internal_error",) * 2]
)
def test_an_end_before_the_runner_came_is_a_failure(state, reported, error):
    before = pool(request("a", state), successes=2)
    after, effects = hear(before, Ended("a", reported, 500), CONFIG, NOON)
    assert (states(after), effects) == ({"a": "ended"}, [])
    assert (after.error, after.error_at, after.successes, after.failures) == (error, NOON, 0, 1)
    assert (after.requests["a"].status, after.requests["a"].ended_at) == (500, NOON)


@pytest.mark.parametrize(
    "one",
    [
        request("a", READY),
        request("a", DRAINING),
        request("a", DRAINING, ready_at=None, runner_id=""),
        request("a", CLOSING),
    ],
)
@pytest.mark.parametrize("error", [None, HTTP_500])
def test_an_end_after_a_good_init_or_by_our_own_will_is_no_failure(one, error):
    before = pool(one, successes=2)
    after, effects = hear(before, Ended("a", error), CONFIG, NOON)
    assert (after.error, after.failures, after.successes, after.retry_at) == (None, 0, 2, None)
    assert effects == ([DrainRunner("runner-a", GRACE)] if one.runner_id else [])
    assert plan(after, CONFIG, 1, {}, NOON).start == 1


def fail(state: State, now: datetime, sent_at: datetime) -> State:
    """Have one more request fail that was sent at some time."""
    failed = replace(request("a", STARTING), started_at=sent_at)
    state = replace(state, requests={"a": failed})
    return hear(state, Ended("a", HTTP_500), CONFIG, now)[0]


def test_failures_in_a_row_wait_2_2_4_8_seconds_and_so_on():
    state, now, waits = EMPTY, NOON, []
    for _ in range(12):
        state = fail(state, now, sent_at=now - SECOND / 2)
        waits.append((state.retry_at - now) // SECOND)
        held_back = plan(state, CONFIG, 1, {}, now)
        assert (held_back.start, held_back.desired) == (0, 1)
        assert held_back.due == min(state.retry_at, now + AUDIT)
        now = state.retry_at
        assert plan(state, CONFIG, 1, {}, now).start == 1
        now += SECOND
    assert waits == [2, 2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512]


def test_requests_that_fail_together_are_one_failure():
    state = EMPTY
    for milliseconds in range(0, 1000, 100):
        state = fail(state, NOON + timedelta(milliseconds=milliseconds), sent_at=NOON - SECOND)
    assert (state.failures, (state.retry_at - NOON) // SECOND) == (1, 2)


def test_only_what_was_sent_after_a_failure_makes_it_two():
    failed = fail(EMPTY, NOON, sent_at=NOON - SECOND)
    assert fail(failed, NOON + SECOND, sent_at=NOON).failures == 1
    assert fail(failed, NOON + SECOND, sent_at=NOON + SECOND / 10).failures == 2


def test_waits_are_spread_by_less_than_half_a_second():
    moments = [NOON + timedelta(microseconds=microseconds) for microseconds in range(1000)]
    spread = {fail(EMPTY, now, sent_at=NOON).retry_at - now - 2 * SECOND for now in moments}
    assert (min(spread), max(spread), len(spread)) == (timedelta(), timedelta(milliseconds=499), 500)


def test_ten_quiet_minutes_make_a_failure_the_first_again():
    state = EMPTY
    for second in range(0, 50, 10):
        state = fail(state, NOON + second * SECOND, sent_at=NOON + (second - 1) * SECOND)
    later = NOON + 40 * SECOND + timedelta(minutes=10)
    assert fail(state, later, sent_at=later - SECOND).failures == 1
    assert fail(state, later - SECOND, sent_at=later - 2 * SECOND).failures == 6


def test_a_runner_that_comes_ends_the_backoff():
    failed = fail(EMPTY, NOON, sent_at=NOON - SECOND)
    waiting = replace(failed, requests={"b": request("b", OPEN)})
    after, _ = hear(waiting, Ready("b", "runner-b"), CONFIG, NOON)
    assert (after.failures, after.retry_at) == (0, None)
    assert plan(after, CONFIG, 2, {}, NOON).start == 1


def test_three_runners_in_a_row_clear_the_error():
    state = fail(EMPTY, NOON, sent_at=NOON - SECOND)
    errors = []
    for number in range(3):
        state = replace(state, requests={"b": request("b", OPEN)})
        state, _ = hear(state, Ready("b", f"runner-{number}"), CONFIG, NOON)
        errors.append((state.error, state.error_at))
    assert errors == [(HTTP_500, NOON), (HTTP_500, NOON), (None, None)]


def test_a_failure_in_between_starts_the_count_of_successes_anew():
    state = fail(EMPTY, NOON, sent_at=NOON - SECOND)
    for outcome in (True, True, False, True, True):
        state = replace(state, requests={"b": request("b", OPEN, age=1)})
        signal = Ready("b", "runner-b") if outcome else Ended("b", HTTP_500)
        state, _ = hear(state, signal, CONFIG, NOON)
    assert (state.error, state.successes) == (HTTP_500, 2)


def test_a_runner_that_is_named_too_late_is_sent_away():
    late = plan(pool(request("a", OPEN, age=120)), CONFIG, 1, {}, NOON)
    _, effects = hear(late.state, Ready("a", "runner-a"), CONFIG, NOON)
    assert effects == [DrainRunner("runner-a", timedelta())]


def test_a_retry_by_hand_ends_the_wait_and_nothing_else():
    failed = replace(EMPTY, error=HTTP_500, failures=3, retry_at=NOON + SECOND)
    after, effects = hear(failed, Retry(), CONFIG, NOON)
    assert (after, effects) == (replace(failed, retry_at=None), [])
    assert plan(after, CONFIG, 1, {}, NOON).start == 1


# Laws

signals = st.one_of(
    st.just(Bump()),
    st.builds(Opened, st.sampled_from("abc"), st.just(200)),
    st.builds(Ready, st.sampled_from("abc"), st.sampled_from(["runner-a", "runner-x"])),
    st.builds(Ended, st.sampled_from("abc"), st.none() | st.just(HTTP_500)),
    st.builds(RunnerGone, st.sampled_from(["runner-a", "runner-b"])),
)


@given(made_pools, signals)
def test_a_signal_heard_twice_acts_once(state, signal):
    after, _ = hear(state, signal, CONFIG, NOON)
    assert hear(after, signal, CONFIG, NOON) == (after, [])
