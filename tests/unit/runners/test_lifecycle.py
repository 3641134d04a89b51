"""What becomes of a runner: every pair of state and signal, then the rules of PROTOCOL §4.9 and DESIGN §11."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given, strategies as st

from runners import lifecycle
from runners.lifecycle import (
    CloseSocket,
    Connected,
    Disconnected,
    Drain,
    Draining,
    DrainOlder,
    Evict,
    Evicting,
    Facts,
    Limits,
    Live,
    OfferSlots,
    SlotFreed,
    Stopped,
    StopReason,
    TellDraining,
    TellLost,
    TellPool,
    Tick,
    decide,
    due_at,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
LIMITS = Limits(lost=15 * SECOND, handshake=SECOND)
SOCKET, OLD_SOCKET = "socket-2", "socket-1"
GRACE = 10 * SECOND

BUSY = Facts(seen_at=NOON - SECOND, used_slots=2, socket_id=SOCKET)
IDLE = replace(BUSY, used_slots=0)
AWAY = replace(BUSY, socket_id="")
SILENT = replace(BUSY, seen_at=NOON - 16 * SECOND)

LIVE = Live(due=NOON + 10 * SECOND)
DRAINING = Draining(NOON - SECOND, until=NOON + 9 * SECOND, due=NOON + SECOND)
EVICTING = Evicting(NOON - SECOND, due=NOON + SECOND / 2, reason=StopReason.DRAINED)
STOPPED = Stopped(StopReason.LOST, NOON - SECOND, due=NOON + SECOND)
STATES = [LIVE, DRAINING, EVICTING, STOPPED]

SIGNALS = {
    "Connected": Connected(SOCKET),
    "Disconnected": Disconnected(OLD_SOCKET),
    "Drain": Drain(GRACE),
    "SlotFreed": SlotFreed(),
    "Evict": Evict(),
    "Tick": Tick(),
}
EVICTED = Evicting(NOON, NOON + SECOND, StopReason.DRAINED)
CLOSE = [CloseSocket()]

# Of each state and signal: the next state and the effects. The runner is busy and connected; nothing is due.
PAIRS = {
    "Live": {
        "Connected": (Live(NOON + 15 * SECOND), [CloseSocket(SOCKET), OfferSlots(), DrainOlder()]),
        "Disconnected": (LIVE, []),
        "Drain": (Draining(NOON, NOON + GRACE, NOON + 2 * SECOND), [TellDraining(NOON + GRACE)]),
        "SlotFreed": (LIVE, []),
        "Evict": (EVICTED, CLOSE),
        "Tick": (Live(NOON + 14 * SECOND), []),
    },
    "Draining": {
        "Connected": (DRAINING, [CloseSocket(SOCKET)]),
        "Disconnected": (DRAINING, []),
        "Drain": (DRAINING, []),
        "SlotFreed": (DRAINING, []),
        "Evict": (replace(EVICTED, since=DRAINING.since), CLOSE),
        "Tick": (DRAINING, []),
    },
    "Evicting": {
        "Connected": (EVICTING, CLOSE),
        "Disconnected": (EVICTING, []),
        "Drain": (EVICTING, []),
        "SlotFreed": (EVICTING, []),
        "Evict": (EVICTING, []),
        "Tick": (EVICTING, []),
    },
    "Stopped": {
        "Connected": (STOPPED, CLOSE),
        "Disconnected": (STOPPED, []),
        "Drain": (STOPPED, []),
        "SlotFreed": (STOPPED, []),
        "Evict": (STOPPED, []),
        "Tick": (STOPPED, []),
    },
}


def name(thing: object) -> str:
    return type(thing).__name__


def test_the_table_has_every_pair():
    signals = {kind.__name__ for kind in get_args(lifecycle.Signal)}
    assert set(PAIRS) == {kind.__name__ for kind in get_args(lifecycle.State)}
    assert set(SIGNALS) == signals
    assert all(set(pairs) == signals for pairs in PAIRS.values())


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("state", STATES, ids=name)
def test_every_pair_has_its_answer(state, signal):
    assert decide(state, SIGNALS[signal], BUSY, NOON, LIMITS) == PAIRS[name(state)][signal]


# Draining


@pytest.mark.parametrize("state", [LIVE, DRAINING], ids=name)
def test_an_idle_runner_is_evicted_at_once_when_it_is_to_go(state):
    signal = Drain(GRACE) if state is LIVE else SlotFreed()
    after, effects = decide(state, signal, IDLE, NOON, LIMITS)
    assert (name(after), effects) == ("Evicting", CLOSE)


@pytest.mark.parametrize("state", STATES, ids=name)
def test_a_runner_that_is_to_go_only_if_it_is_idle_stays_with_its_actors_as_it_is(state):
    asked = Drain(GRACE / 10, only_if_idle=True)
    assert decide(state, asked, BUSY, NOON, LIMITS) == (state, [])


def test_a_runner_that_is_to_go_only_if_it_is_idle_goes_if_it_is():
    assert decide(LIVE, Drain(GRACE, only_if_idle=True), IDLE, NOON, LIMITS) == (EVICTED, CLOSE)


def test_a_runner_is_evicted_at_the_end_of_its_grace_and_not_before():
    just_before = DRAINING.until - timedelta(microseconds=1)
    told_again, _ = decide(DRAINING, Tick(), BUSY, just_before, LIMITS)
    assert (name(told_again), due_at(told_again)) == ("Draining", DRAINING.until)
    after, effects = decide(told_again, Tick(), BUSY, DRAINING.until, LIMITS)
    assert after == Evicting(DRAINING.since, DRAINING.until + SECOND, StopReason.DRAINED)
    assert effects == CLOSE


def test_the_actors_of_a_draining_runner_are_told_until_they_have_left():
    assert decide(DRAINING, Tick(), BUSY, DRAINING.due - timedelta(microseconds=1), LIMITS) == (DRAINING, [])
    again, effects = decide(DRAINING, Tick(), BUSY, DRAINING.due, LIMITS)
    assert again == replace(DRAINING, due=DRAINING.due + 2 * SECOND)
    assert effects == [TellDraining(DRAINING.until)]
    assert name(decide(again, Tick(), IDLE, again.due, LIMITS)[0]) == "Evicting"


def test_a_second_drain_can_only_shorten_the_grace():
    longer, effects = decide(DRAINING, Drain(60 * SECOND), BUSY, NOON, LIMITS)
    assert (longer, effects) == (DRAINING, [])
    shorter, effects = decide(DRAINING, Drain(2 * SECOND), BUSY, NOON, LIMITS)
    assert (shorter.until, effects) == (NOON + 2 * SECOND, [TellDraining(NOON + 2 * SECOND)])


def test_a_draining_runner_whose_socket_has_closed_is_gone():
    after, effects = decide(DRAINING, Disconnected(SOCKET), AWAY, NOON, LIMITS)
    assert after == Stopped(StopReason.DRAINED, NOON, NOON + 2 * SECOND)
    assert effects == [TellLost(BUSY.seen_at, StopReason.DRAINED), TellPool()]


# The eviction


def test_actors_are_lost_only_after_the_closing_handshake():
    evicting, effects = decide(LIVE, Evict(), BUSY, NOON, LIMITS)
    assert effects == CLOSE
    stopped, effects = decide(evicting, Disconnected(SOCKET), AWAY, NOON + SECOND / 4, LIMITS)
    assert (name(stopped), effects) == ("Stopped", [TellLost(BUSY.seen_at, StopReason.DRAINED), TellPool()])


def test_a_runner_that_does_not_close_is_given_up_after_the_handshakes_time():
    just_before = EVICTING.due - timedelta(microseconds=1)
    assert decide(EVICTING, Tick(), BUSY, just_before, LIMITS) == (EVICTING, [])
    stopped, effects = decide(EVICTING, Tick(), BUSY, EVICTING.due, LIMITS)
    assert (name(stopped), effects) == ("Stopped", [TellLost(BUSY.seen_at, StopReason.DRAINED), TellPool()])


def test_a_runner_without_actors_has_nobody_to_tell():
    stopped, effects = decide(EVICTING, Disconnected(SOCKET), replace(IDLE, socket_id=""), NOON, LIMITS)
    assert (stopped, effects) == (Stopped(StopReason.DRAINED, NOON, None), [TellPool()])
    assert due_at(stopped) is None


# Silence (PROTOCOL §4.2, §4.9)


@pytest.mark.parametrize("silent_ms", [0, 9_000, 14_999])
def test_a_runner_heard_of_a_moment_ago_lives(silent_ms):
    facts = replace(BUSY, seen_at=NOON - timedelta(milliseconds=silent_ms))
    after, effects = decide(LIVE, Tick(), facts, NOON, LIMITS)
    assert (after, effects) == (Live(facts.seen_at + 15 * SECOND), [])


def test_a_silent_runner_without_a_socket_is_lost_at_once():
    facts = replace(SILENT, socket_id="", seen_at=NOON - 15 * SECOND)
    stopped, effects = decide(LIVE, Tick(), facts, NOON, LIMITS)
    assert stopped == Stopped(StopReason.LOST, NOON, NOON + 2 * SECOND)
    assert effects == [TellLost(facts.seen_at, StopReason.LOST), TellPool()]


def test_a_silent_runner_with_a_socket_is_closed_first():
    evicting, effects = decide(LIVE, Tick(), SILENT, NOON, LIMITS)
    assert (name(evicting), effects) == ("Evicting", CLOSE)
    stopped, effects = decide(evicting, Tick(), SILENT, evicting.due, LIMITS)
    assert (stopped.reason, effects) == (
        StopReason.LOST,
        [TellLost(SILENT.seen_at, StopReason.LOST), TellPool()],
    )


# After the end


def test_the_actors_of_an_ended_runner_are_told_until_they_have_left():
    again, effects = decide(STOPPED, Tick(), BUSY, STOPPED.due, LIMITS)
    assert again == replace(STOPPED, due=STOPPED.due + 2 * SECOND)
    assert effects == [TellLost(BUSY.seen_at, StopReason.LOST)]
    over, effects = decide(again, SlotFreed(), IDLE, again.due, LIMITS)
    assert (over, effects) == (replace(STOPPED, due=None), [])
    for facts in (IDLE, BUSY):
        assert decide(over, Tick(), facts, again.due + SECOND, LIMITS) == (over, [])


# Stale sockets


@pytest.mark.parametrize("state", [LIVE, DRAINING], ids=name)
def test_a_socket_that_was_followed_by_another_is_nothing(state):
    assert decide(state, Connected(OLD_SOCKET), BUSY, NOON, LIMITS) == (state, [])
    assert decide(state, Disconnected(OLD_SOCKET), BUSY, NOON, LIMITS) == (state, [])


# Laws

seconds = st.integers(-30, 30).map(lambda value: NOON + value * SECOND)
sockets = st.sampled_from([SOCKET, OLD_SOCKET])
all_facts = st.builds(Facts, seconds, st.integers(0, 2), st.sampled_from(["", SOCKET]))
reasons = st.sampled_from(StopReason)
states = st.one_of(
    st.builds(Live, seconds),
    st.builds(Draining, seconds, seconds, seconds),
    st.builds(Evicting, seconds, seconds, reasons),
    st.builds(Stopped, reasons, seconds, st.none() | seconds),
)
signals = st.one_of(
    st.builds(Connected, sockets),
    st.builds(Disconnected, sockets),
    st.builds(lambda value, only_if_idle: Drain(value * SECOND, only_if_idle), st.integers(0, 60), st.booleans()),
    st.sampled_from([SlotFreed(), Evict(), Tick()]),
)
ORDER = [Live, Draining, Evicting, Stopped]


@given(states, signals, all_facts)
def test_a_life_goes_one_way(state, signal, facts):
    after, _ = decide(state, signal, facts, NOON, LIMITS)
    assert ORDER.index(type(after)) >= ORDER.index(type(state))


@given(states, signals, all_facts)
def test_whoever_is_not_done_has_a_deadline(state, signal, facts):
    after, _ = decide(state, signal, facts, NOON, LIMITS)
    assert due_at(after) is not None or isinstance(after, Stopped)
    if isinstance(after, Stopped) and not isinstance(state, Stopped):
        assert (due_at(after) is not None) is (facts.used_slots > 0)


@given(states, signals, all_facts)
def test_a_signal_delivered_twice_acts_once(state, signal, facts):
    after, _ = decide(state, signal, facts, NOON, LIMITS)
    again, effects = decide(after, signal, facts, NOON, LIMITS)
    assert again == after
    assert effects == [] or isinstance(signal, Connected)  # an unwanted socket is closed whenever it is spoken of


@given(states, signals, all_facts)
def test_actors_are_told_of_the_end_only_by_it(state, signal, facts):
    after, effects = decide(state, signal, facts, NOON, LIMITS)
    if any(isinstance(effect, TellLost) for effect in effects):
        assert isinstance(after, Stopped)
        assert facts.used_slots > 0
