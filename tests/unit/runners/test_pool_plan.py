"""What a serverless pool does about its `/start` requests (PROTOCOL §7.3 to §7.5)."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from runners.pool import DrainRunner, Ended, EvictRunner, Ready, hear, may_return
from runners.pool_plan import AUDIT, REMIND, plan, wanted_runners
from tests.unit.runners.pool_cases import (
    CLOSING,
    CONFIG,
    DRAINING,
    EMPTY,
    ENDED,
    GRACE,
    NOON,
    OPEN,
    PATIENT,
    READY,
    SECOND,
    STARTING,
    WANTED,
    let_go,
    made_pools,
    pool,
    request,
    states,
)

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
    for maximum in range(6, -1, -1):
        after = plan(pool(*requests), replace(CONFIG, max_runners=maximum), 7, used, NOON).state
        going = {one.id for one in after.requests.values() if one.state in (DRAINING, ENDED) or one.drain_at}
        assert len(going) == 7 - maximum
        gone += sorted(going - set(gone))
    assert gone == ["wanted", "starting", "open", "idle-old", "idle-new", "busy-old", "busy-new"]


def test_a_busy_runner_too_many_is_drained_within_the_pools_grace():
    made = plan(pool(request("a", READY)), replace(CONFIG, max_runners=0), 1, {"runner-a": 1}, NOON)
    drained = made.state.requests["a"]
    assert (drained.state, drained.drain_at, drained.close_at) == (DRAINING, NOON, NOON + GRACE)
    assert made.effects == (DrainRunner("runner-a", GRACE),)
    assert made.due == NOON + GRACE


def test_an_idle_runner_too_many_goes_if_it_is_idle_still_and_its_request_is_ready_meanwhile():
    made = plan(pool(request("a", READY)), CONFIG, 0, {"runner-a": 0}, NOON)
    left = made.state.requests["a"]
    assert (left.state, left.drain_at, left.close_at) == (READY, NOON, None)
    assert made.effects == (DrainRunner("runner-a", GRACE, only_if_idle=True),)
    assert made.due == NOON + REMIND


@pytest.mark.parametrize(
    ("demand", "used", "drain_at", "effects"),
    [
        (0, 0, NOON - SECOND, ()),  # it has not answered yet
        (0, 0, NOON - REMIND, (DrainRunner("runner-a", GRACE, only_if_idle=True),)),  # the question was lost
        (1, 1, NOON - SECOND, ()),  # it was given an actor
        (1, 0, NOON - SECOND, ()),  # an actor waits: it is to have it
    ],
)
def test_a_runner_that_was_asked_to_go_is_asked_again_or_stays(demand, used, drain_at, effects):
    made = plan(pool(request("a", READY, drain_at=drain_at)), CONFIG, demand, {"runner-a": used}, NOON)
    kept = drain_at if not effects else NOON
    assert made.state.requests["a"] == request("a", READY, drain_at=None if demand else kept)
    assert (made.effects, made.start) == (effects, 0)


def test_a_busy_runner_is_not_taken_for_surplus_because_its_actor_was_counted_too_early():
    made = plan(pool(request("a", READY)), CONFIG, 0, {"runner-a": 1}, NOON)
    assert (states(made.state), made.effects, made.desired) == ({"a": "ready"}, (), 1)


def test_a_surplus_request_that_was_not_sent_is_dropped():
    made = plan(pool(request("a", WANTED)), CONFIG, 0, {}, NOON)
    assert (states(made.state), made.effects) == ({"a": "ended"}, ())


@pytest.mark.parametrize("state", [STARTING, OPEN])
def test_the_runner_of_a_surplus_request_is_asked_to_go_as_soon_as_it_comes(state):
    made = plan(pool(request("a", state)), CONFIG, 0, {}, NOON)
    assert (states(made.state), made.effects) == ({"a": "draining"}, ())
    later = NOON + 4 * SECOND
    come, effects = hear(made.state, Ready("a", "runner-a"), CONFIG, later)
    assert effects == []
    after = plan(come, CONFIG, 0, {"runner-a": 0}, later)
    assert after.effects == (DrainRunner("runner-a", GRACE, only_if_idle=True),)
    assert plan(come, CONFIG, 1, {"runner-a": 1}, later).effects == ()


@pytest.mark.parametrize("opened_at", [None, NOON])
def test_what_was_let_go_before_its_runner_came_is_taken_back_rather_than_another_started(opened_at):
    older, newer = let_go("older", 90, opened_at=opened_at), let_go("newer", 80)
    made = plan(pool(newer, older), CONFIG, 1, {}, NOON)
    assert (made.start, made.effects) == (0, ())
    assert states(made.state) == {"newer": "draining", "older": "starting" if opened_at is None else "open"}
    assert (made.state.requests["older"].drain_at, made.state.requests["older"].close_at) == (None, None)
    assert plan(pool(newer, older), CONFIG, 3, {}, NOON).start == 1


def test_what_is_wanted_again_at_the_very_end_of_its_grace_is_taken_back_and_not_closed():
    over = let_go("a", close_at=NOON)
    assert states(plan(pool(over), CONFIG, 0, {}, NOON).state) == {"a": "closing"}
    assert states(plan(pool(over), CONFIG, 1, {}, NOON).state) == {"a": "starting"}


@pytest.mark.parametrize(
    ("why", "one", "config"),
    [
        ("its runner was told to go", request("a", DRAINING), CONFIG),
        ("it is to be closed", request("a", CLOSING), CONFIG),
        ("its connector is dead", let_go("a", orphaned=True), CONFIG),
        ("it is of another endpoint", let_go("a"), replace(CONFIG, epoch=2)),
        ("its lifespan ends", let_go("a", age=890), replace(CONFIG, ready=1000 * SECOND)),
        ("it should have named its runner", let_go("a", age=120), CONFIG),
        ("nothing is started", let_go("a"), replace(CONFIG, paused=True)),
        ("the pool is gone", let_go("a"), replace(CONFIG, wanted=False)),
    ],
)
def test_what_was_let_go_is_not_taken_back_if(why, one, config):
    made = plan(pool(one), config, 1, {}, NOON)
    assert made.state.requests["a"].state not in (STARTING, OPEN, READY), why
    assert made.start == (1 if config.wanted and not config.paused else 0)


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
    assert made.due == draining.close_at + REMIND


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


def test_a_paused_pool_starts_nothing_and_keeps_what_it_has():
    paused = replace(CONFIG, paused=True)
    made = plan(pool(request("a", READY)), paused, 3, {}, NOON)
    assert (made.start, made.desired, made.due) == (0, 3, NOON + AUDIT)
    assert states(made.state) == {"a": "ready"}


def test_a_paused_pool_is_not_planned_again_for_the_end_of_its_backoff():
    failed = replace(EMPTY, retry_at=NOON + SECOND)
    assert plan(failed, replace(CONFIG, paused=True), 1, {}, NOON).due == NOON + AUDIT


def test_a_cordoned_runner_serves_its_own_actors_and_counts_for_no_others():
    config = replace(CONFIG, slots_per_runner=2)
    requests = pool(request("a", READY))
    assert plan(requests, config, 2, {"runner-a": 1}, NOON).start == 0
    assert plan(requests, config, 2, {"runner-a": 1}, NOON, {"runner-a"}).start == 1
    assert plan(requests, config, 1, {"runner-a": 1}, NOON, {"runner-a"}).start == 0


# When to look again


@pytest.mark.parametrize(
    ("requests", "demand", "due"),
    [
        ([], 0, None),
        ([], 1, NOON + AUDIT),
        ([request("a", READY)], 1, NOON + AUDIT),
        ([request("a", OPEN, age=100)], 1, NOON + 20 * SECOND),
        ([request("a", DRAINING)], 0, NOON + 5 * SECOND),
        ([request("a", CLOSING)], 0, NOON + REMIND),
        ([request("a", ENDED)], 0, None),
    ],
)
def test_a_pool_is_planned_again_while_there_is_something_to_wait_for(requests, demand, due):
    assert plan(pool(*requests), CONFIG, demand, {}, NOON).due == due


# Laws

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


def is_asked(one):
    return one.state is READY and one.drain_at is not None


def is_due(one):
    """Say whether it goes for another reason than surplus."""
    return one.epoch != CONFIG.epoch or one.created_at <= NOON - CONFIG.lifespan + GRACE


@given(made_pools, configs, st.integers(0, 9), busy)
def test_after_a_plan_there_are_as_many_as_wanted(state, config, demand, used):
    made = plan(state, config, demand, used, NOON)
    left = sum(one.state in COUNTED and not is_asked(one) for one in made.state.requests.values())
    assert left + made.start == made.desired == wanted_runners(config, max(demand, sum(used.values())))


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
    asked_now = [one.runner_id for one in made.state.requests.values() if is_asked(one) and one.drain_at == NOON]
    assert sorted(told) == sorted([*changed, *asked_now])


@given(made_pools, configs, st.integers(0, 9), busy)
def test_surplus_interrupts_no_actor_that_could_stay(state, config, demand, used):
    made = plan(state, replace(config, wanted=True), demand, used, NOON)
    going = [
        state.requests[id_]
        for id_, after in made.state.requests.items()
        if state.requests[id_].state is READY and after.state is not READY and not is_due(state.requests[id_])
    ]
    stays = [one for one in made.state.requests.values() if one.state is READY and not is_asked(one)]
    for one in going:
        assert used.get(one.runner_id) or one.orphaned
        if used.get(one.runner_id):
            assert len(stays) == made.desired
            assert all(used.get(other.runner_id) for other in stays)


@given(made_pools, configs, st.integers(0, 9), busy)
def test_nothing_is_started_while_something_can_be_taken_back(state, config, demand, used):
    made = plan(state, config, demand, used, NOON)
    assert not made.start or not any(may_return(one, config, NOON) for one in made.state.requests.values())


@given(st.lists(st.tuples(st.sampled_from([STARTING, OPEN]), st.integers(0, 60)), max_size=6), st.integers(0, 6))
def test_who_is_wanted_again_before_a_runner_has_come_finds_all_as_it_was(sent, fewer):
    before = pool(*(request(str(number), made, age) for number, (made, age) in enumerate(sent)))
    without = plan(before, CONFIG, min(fewer, len(sent)), {}, NOON).state
    again = plan(without, CONFIG, len(sent), {}, NOON + SECOND)
    assert (again.start, again.effects) == (0, ())
    assert again.state == before
