"""How a serverless pool hears of its `/start` requests and plans them (PROTOCOL §7.3 to §7.5)."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from runners.pool import (
    AUDIT,
    CLOSE_AGAIN,
    Bump,
    Config,
    DrainRunner,
    Ended,
    EvictRunner,
    Opened,
    Ready,
    Request,
    RequestState,
    Retry,
    RunnerGone,
    State,
    hear,
    plan,
    wanted_runners,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GRACE = 10 * SECOND
CONFIG = Config(
    wanted=True,
    slots_per_runner=1,
    min_runners=0,
    max_runners=1000,
    runners_margin=0,
    lifespan=900 * SECOND,
    grace=GRACE,
    epoch=1,
    ready=120 * SECOND,
)
EMPTY = State({})
HTTP_500 = {"serverless_http_error": {"status_code": 500, "body": "no"}}

WANTED, STARTING, OPEN, READY = (
    RequestState.WANTED,
    RequestState.STARTING,
    RequestState.OPEN,
    RequestState.READY,
)
DRAINING, CLOSING, ENDED = RequestState.DRAINING, RequestState.CLOSING, RequestState.ENDED
SENT = {STARTING, OPEN, READY, DRAINING, CLOSING}


def request(id_: str, state: RequestState, age: int = 60, **more: object) -> Request:
    """Return a request that was made and sent `age` seconds before noon; the runner of `r1` is `runner-r1`."""
    at = NOON - age * SECOND
    known = {"started_at": at} if state in SENT else {}
    if state in (READY, DRAINING):
        known |= {"runner_id": f"runner-{id_}", "opened_at": at, "ready_at": at}
    if state is DRAINING:
        known |= {"drain_at": at, "close_at": NOON + 5 * SECOND}
    return Request(id_, state, epoch=1, created_at=at, **(known | more))


def pool(*requests: Request, **more: object) -> State:
    return State({one.id: one for one in requests}, **more)


def states(state: State) -> dict[str, str]:
    return {id_: one.state.value for id_, one in state.requests.items()}


# How many (PROTOCOL §7.4)


@pytest.mark.parametrize(
    ("demand", "slots", "margin", "minimum", "maximum", "wanted"),
    [
        (0, 1, 0, 0, 1000, 0),
        (1, 1, 0, 0, 1000, 1),
        (7, 1, 0, 0, 1000, 7),
        (1, 4, 0, 0, 1000, 1),
        (4, 4, 0, 0, 1000, 1),
        (5, 4, 0, 0, 1000, 2),
        (8, 4, 0, 0, 1000, 2),
        (9, 4, 0, 0, 1000, 3),
        (-3, 4, 0, 0, 1000, 0),
        (0, 1, 2, 0, 1000, 2),
        (3, 1, 2, 0, 1000, 5),
        (5, 4, 1, 0, 1000, 3),
        (0, 1, 0, 3, 1000, 3),
        (2, 1, 0, 3, 1000, 3),
        (2, 1, 2, 3, 1000, 4),
        (9, 1, 0, 0, 4, 4),
        (9, 1, 2, 0, 4, 4),
        (0, 1, 0, 5, 4, 4),
        (9, 1, 0, 0, 0, 0),
        (1_000_000, 1, 0, 0, 1000, 1000),
    ],
)
def test_the_runners_wanted(demand, slots, margin, minimum, maximum, wanted):
    config = replace(
        CONFIG, slots_per_runner=slots, runners_margin=margin, min_runners=minimum, max_runners=maximum
    )
    assert wanted_runners(config, demand) == wanted
    assert plan(EMPTY, config, demand, {}, NOON).start == wanted


def test_a_pool_that_is_not_serverless_any_more_wants_nothing():
    config = replace(CONFIG, wanted=False, min_runners=3, runners_margin=2)
    assert wanted_runners(config, 9) == 0


@pytest.mark.parametrize(
    ("have", "start"),
    [
        ([], 4),
        ([WANTED], 3),
        ([STARTING, OPEN, READY], 1),
        ([DRAINING, CLOSING], 4),
        ([READY, READY, READY, READY], 0),
    ],
)
def test_only_what_is_missing_is_started(have, start):
    requests = [request(str(number), state) for number, state in enumerate(have)]
    made = plan(pool(*requests), CONFIG, 4, {}, NOON)
    assert (made.start, made.desired) == (start, 4)
    assert states(made.state) == {one.id: one.state.value for one in requests}
    assert made.effects == ()


# Surplus (PROTOCOL §7.4; DESIGN §11: idle ones first, then the oldest)


def test_surplus_is_let_go_in_the_order_of_what_is_lost_with_it():
    requests = [
        request("busy-old", READY, 90),
        request("busy-new", READY, 80),
        request("idle-old", READY, 70),
        request("idle-new", READY, 60),
        request("open", OPEN, 50),
        request("starting", STARTING, 40),
        request("wanted", WANTED, 30),
    ]
    used = {"runner-busy-old": 1, "runner-busy-new": 2, "runner-idle-old": 0}
    gone = []
    for demand in range(6, -1, -1):
        after = plan(pool(*requests), CONFIG, demand, used, NOON).state
        let_go = {one.id for one in after.requests.values() if one.state in (DRAINING, ENDED)}
        assert len(let_go) == 7 - demand
        gone += sorted(let_go - set(gone))
    assert gone == ["wanted", "starting", "open", "idle-old", "idle-new", "busy-old", "busy-new"]


def test_a_surplus_runner_is_drained_within_the_pools_grace():
    made = plan(pool(request("a", READY)), CONFIG, 0, {}, NOON)
    drained = made.state.requests["a"]
    assert (drained.state, drained.drain_at, drained.close_at) == (DRAINING, NOON, NOON + GRACE)
    assert made.effects == (DrainRunner("runner-a", GRACE),)
    assert made.due == NOON + GRACE


def test_a_surplus_request_that_was_not_sent_is_dropped():
    made = plan(pool(request("a", WANTED)), CONFIG, 0, {}, NOON)
    assert (states(made.state), made.effects) == ({"a": "ended"}, ())


@pytest.mark.parametrize("state", [STARTING, OPEN])
def test_the_runner_of_a_surplus_request_is_drained_as_soon_as_it_comes(state):
    made = plan(pool(request("a", state)), CONFIG, 0, {}, NOON)
    assert (states(made.state), made.effects) == ({"a": "draining"}, ())
    later = NOON + 4 * SECOND
    state_after, effects = hear(made.state, Ready("a", "runner-a"), CONFIG, later)
    assert effects == [DrainRunner("runner-a", 6 * SECOND)]
    assert states(state_after) == {"a": "draining"}


def test_a_deleted_pool_lets_go_of_everything():
    config = replace(CONFIG, wanted=False)
    requests = [request("a", WANTED), request("b", STARTING), request("c", READY)]
    made = plan(pool(*requests), config, 0, {"runner-c": 5}, NOON)
    assert states(made.state) == {"a": "ended", "b": "draining", "c": "draining"}
    assert made.effects == (DrainRunner("runner-c", GRACE),)


# The life of one request (PROTOCOL §7.5)


def test_a_runner_is_drained_a_grace_before_the_end_of_its_lifespan_and_replaced():
    old = request("a", READY, age=0)
    drain_at, end = NOON + 890 * SECOND, NOON + 900 * SECOND
    assert plan(pool(old), CONFIG, 1, {}, NOON).due == NOON + AUDIT
    before = plan(pool(old), CONFIG, 1, {}, drain_at - SECOND)
    assert (states(before.state), before.start, before.due) == ({"a": "ready"}, 0, drain_at)
    after = plan(pool(old), CONFIG, 1, {}, drain_at)
    assert (states(after.state), after.start, after.due) == ({"a": "draining"}, 1, end)
    assert after.effects == (DrainRunner("runner-a", GRACE),)


def test_a_plan_that_comes_late_ends_the_lifespan_no_later():
    late = NOON + 893 * SECOND
    made = plan(pool(request("a", READY, age=0)), CONFIG, 1, {}, late)
    assert made.state.requests["a"].close_at == NOON + 900 * SECOND
    assert made.effects == (DrainRunner("runner-a", 7 * SECOND),)


def test_a_runner_that_has_drained_is_evicted_and_its_request_closed():
    draining = request("a", DRAINING)
    assert states(plan(pool(draining), CONFIG, 0, {}, draining.close_at - SECOND).state) == {"a": "draining"}
    made = plan(pool(draining), CONFIG, 0, {}, draining.close_at)
    assert (states(made.state), made.effects) == ({"a": "closing"}, (EvictRunner("runner-a"),))
    assert made.due == draining.close_at + CLOSE_AGAIN


def test_a_change_of_the_endpoint_replaces_what_belongs_to_the_old_one():
    config = replace(CONFIG, epoch=2)
    requests = [request("a", WANTED), request("b", OPEN), request("c", READY), request("d", READY)]
    requests[3] = replace(requests[3], epoch=2)
    made = plan(pool(*requests), config, 4, {}, NOON)
    assert states(made.state) == {"a": "ended", "b": "draining", "c": "draining", "d": "ready"}
    assert (made.start, made.effects) == (3, (DrainRunner("runner-c", GRACE),))


@pytest.mark.parametrize(
    ("state", "after"),
    [(WANTED, "wanted"), (STARTING, "starting"), (READY, "ready"), (DRAINING, "ended"), (CLOSING, "ended")],
)
def test_what_a_dead_connector_was_to_end_has_ended(state, after):
    made = plan(pool(request("a", state, orphaned=True)), CONFIG, 1, {}, NOON)
    assert states(made.state) == {"a": after}


def test_a_surplus_runner_whose_connector_is_dead_is_drained_and_its_request_over():
    made = plan(pool(request("a", READY, orphaned=True)), CONFIG, 0, {}, NOON)
    assert (states(made.state), made.effects) == ({"a": "ended"}, (DrainRunner("runner-a", GRACE),))


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


@pytest.mark.parametrize("state", [STARTING, OPEN])
def test_a_request_that_names_no_runner_in_time_has_failed(state):
    given_up = {"serverless_connection_error": {"message": "no runner within 120 s"}}
    assert plan(pool(request("a", state, age=119)), CONFIG, 1, {}, NOON).state.requests["a"].state is state
    late = plan(pool(request("a", state, age=120)), CONFIG, 1, {}, NOON)
    assert (late.state.error, late.state.failures, late.start) == (given_up, 1, 0)
    assert late.state.requests["a"].state is CLOSING
    ended, effects = hear(late.state, Ended("a"), CONFIG, NOON)
    assert (ended.failures, ended.requests["a"].error, effects) == (1, given_up, [])
    retry = plan(ended, CONFIG, 1, {}, NOON + 3 * SECOND)
    assert retry.start == 1


def test_a_runner_that_is_named_too_late_is_sent_away():
    late = plan(pool(request("a", OPEN, age=120)), CONFIG, 1, {}, NOON)
    _, effects = hear(late.state, Ready("a", "runner-a"), CONFIG, NOON)
    assert effects == [DrainRunner("runner-a", timedelta())]


# When to look again


@pytest.mark.parametrize(
    ("requests", "demand", "due"),
    [
        ([], 0, None),
        ([], 1, NOON + AUDIT),
        ([request("a", READY)], 1, NOON + AUDIT),
        ([request("a", OPEN, age=100)], 1, NOON + 20 * SECOND),
        ([request("a", DRAINING)], 0, NOON + 5 * SECOND),
        ([request("a", CLOSING)], 0, NOON + CLOSE_AGAIN),
        ([request("a", ENDED)], 0, None),
    ],
)
def test_a_pool_is_planned_again_while_there_is_something_to_wait_for(requests, demand, due):
    assert plan(pool(*requests), CONFIG, demand, {}, NOON).due == due


# Laws

PATIENT = replace(CONFIG, ready=CONFIG.lifespan)  # whose requests do not fail by being looked at
made_requests = st.builds(
    lambda id_, state, age, orphaned, epoch: replace(request(id_, state, age, orphaned=orphaned), epoch=epoch),
    st.sampled_from("abcdefgh"),
    st.sampled_from(RequestState),
    st.integers(0, 899),  # from 900 on its lifespan is over, and the next plan closes it
    st.booleans(),
    st.integers(1, 2),
)
made_pools = st.lists(made_requests, max_size=8).map(lambda requests: pool(*requests))
configs = st.builds(
    lambda wanted, slots, low, high, margin: replace(
        PATIENT, wanted=wanted, slots_per_runner=slots, min_runners=low, max_runners=high, runners_margin=margin
    ),
    st.booleans(),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 6),
    st.integers(0, 2),
)
busy = st.dictionaries(st.sampled_from([f"runner-{id_}" for id_ in "abcdefgh"]), st.integers(0, 3))
COUNTED = {WANTED, STARTING, OPEN, READY}


@given(made_pools, configs, st.integers(0, 9), busy)
def test_after_a_plan_there_are_as_many_as_wanted(state, config, demand, used):
    made = plan(state, config, demand, used, NOON)
    left = sum(one.state in COUNTED for one in made.state.requests.values())
    assert left + made.start == made.desired == wanted_runners(config, demand)


@given(made_pools, configs, st.integers(0, 9), busy)
def test_a_plan_made_twice_changes_nothing_more(state, config, demand, used):
    first = plan(state, config, demand, used, NOON)
    second = plan(first.state, config, demand, used, NOON)
    assert (second.state, second.effects, second.start) == (first.state, (), first.start)


@given(made_pools, configs, st.integers(0, 9), busy)
def test_every_runner_let_go_is_told_once(state, config, demand, used):
    made = plan(state, config, demand, used, NOON)
    told = [effect.runner_id for effect in made.effects]
    changed = [
        after.runner_id
        for id_, after in made.state.requests.items()
        if after.runner_id and after.state is not state.requests[id_].state
        if after.state in (DRAINING, CLOSING) or state.requests[id_].state is READY
    ]
    assert sorted(told) == sorted(changed)


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


def test_a_paused_pool_starts_nothing_and_keeps_what_it_has():
    paused = replace(CONFIG, paused=True)
    made = plan(pool(request("a", READY)), paused, 3, {}, NOON)
    assert (made.start, made.desired, made.due) == (0, 3, NOON + AUDIT)
    assert states(made.state) == {"a": "ready"}


def test_a_paused_pool_is_not_planned_again_for_the_end_of_its_backoff():
    failed = replace(EMPTY, retry_at=NOON + SECOND)
    assert plan(failed, replace(CONFIG, paused=True), 1, {}, NOON).due == NOON + AUDIT


def test_a_retry_by_hand_ends_the_wait_and_nothing_else():
    failed = replace(EMPTY, error=HTTP_500, failures=3, retry_at=NOON + SECOND)
    after, effects = hear(failed, Retry(), CONFIG, NOON)
    assert (after, effects) == (replace(failed, retry_at=None), [])
    assert plan(after, CONFIG, 1, {}, NOON).start == 1


def test_a_cordoned_runner_serves_its_own_actors_and_counts_for_no_others():
    config = replace(CONFIG, slots_per_runner=2)
    requests = pool(request("a", READY))
    assert plan(requests, config, 2, {"runner-a": 1}, NOON).start == 0
    assert plan(requests, config, 2, {"runner-a": 1}, NOON, {"runner-a"}).start == 1
    assert plan(requests, config, 1, {"runner-a": 1}, NOON, {"runner-a"}).start == 0
