"""One runner's socket without the socket."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from orchestrator.ids import new_id
from runners.connection import (
    MAX_ACTOR_NAMES,
    MAX_INIT_BYTES,
    MAX_UNDER_WAY,
    Address,
    CommandCursor,
    Events,
    InvalidInitialPacket,
    InvalidUrl,
    WrongHost,
    check_host,
    offered_token,
    parse_query,
    read_init,
)
from runners.errors import RunnerProtocolError
from runners.protocol.codec import encode_to_server
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    StopCode,
    ToServerInit,
    ToServerStopping,
)

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
RUNNER, ACTOR, OTHER = (new_id() for _ in range(3))
RUNNING = EventActorStateUpdate(ActorStateRunning())
STOPPED = EventActorStateUpdate(ActorStateStopped(StopCode.OK, None))


# The request to connect


@pytest.mark.parametrize(
    ("query", "address"),
    [
        (b"protocol_version=7&namespace=default&runner_key=k", Address(7, "default", "k")),
        (b"runner_key=a%2Fb%20c&namespace=n+s&protocol_version=65535", Address(65535, "n s", "a/b c")),
        (b"protocol_version=007&namespace=n&runner_key=k&more=1", Address(7, "n", "k")),
        (b"protocol_version=4&namespace=n&runner_key=%C3%A4", Address(4, "n", "ä")),
    ],
)
def test_the_query_names_version_namespace_and_key(query, address):
    assert parse_query(query) == address


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"namespace=n&runner_key=k",
        b"protocol_version=&namespace=n&runner_key=k",
        b"protocol_version=x&namespace=n&runner_key=k",
        b"protocol_version=-1&namespace=n&runner_key=k",
        b"protocol_version=7.0&namespace=n&runner_key=k",
        b"protocol_version=65536&namespace=n&runner_key=k",
        b"protocol_version=%D9%A7&namespace=n&runner_key=k",
        b"protocol_version=" + b"9" * 10_000 + b"&namespace=n&runner_key=k",
        b"protocol_version=7&runner_key=k",
        b"protocol_version=7&namespace=n",
        b"protocol_version=7&namespace=&runner_key=k",
        b"protocol_version=7&namespace=n&runner_key=",
        b"protocol_version=7&namespace=n&runner_key=a%00b",
        b"protocol_version=7&namespace=%00&runner_key=k",
        b"protocol_version=7&namespace=n&runner_key=" + b"k" * 1025,
    ],
)
def test_a_query_that_lacks_something_is_refused(query):
    with pytest.raises(InvalidUrl):
        parse_query(query)


def test_without_valid_hosts_any_host_is_good():
    check_host("", [], "default")
    check_host("anywhere:80", [], "default")


VALID = ["eu.test", "us.test:6420", "[::1]"]


@pytest.mark.parametrize("host", ["eu.test", "EU.test", "eu.test:80", "us.test:6420", "[::1]:6420"])
def test_a_valid_host_is_known_by_its_name_whatever_the_port_unless_that_is_named_too(host):
    check_host(host, VALID, "default")


@pytest.mark.parametrize("host", ["", "test", "eu.test.", "us.test", "us.test:80", "x.eu.test", "::1"])
def test_another_host_is_refused_and_told_the_valid_ones(host):
    with pytest.raises(WrongHost) as caught:
        check_host(host, VALID, "default")
    assert caught.value.metadata == {"host": host, "datacenter": "default", "valid_hosts": sorted(VALID)}


def test_a_token_is_found_wherever_it_stands_among_the_offers():
    assert offered_token(["rivet_token.secret", "rivet"]) == "secret"
    assert offered_token(["rivet", "rivet_token.a.b-c", "rivet_token.later"]) == "a.b-c"


def test_without_an_offer_there_is_no_token():
    for offers in ([], ["rivet"], ["rivet_tokensecret"]):
        assert offered_token(offers) is None
    assert offered_token(["rivet_token."]) == ""


INIT = ToServerInit("pool", 1, 10, None, None)
MANY_NAMES = {str(number): "{}" for number in range(MAX_ACTOR_NAMES + 1)}


@pytest.mark.parametrize("version", [4, 5, 6, 7])
def test_the_first_frame_is_the_init(version):
    assert read_init(encode_to_server(INIT, version), version) == INIT


@pytest.mark.parametrize(
    ("frame", "version", "error"),
    [
        (None, 7, RunnerProtocolError),
        (b"", 7, RunnerProtocolError),
        (b"\xff", 7, RunnerProtocolError),
        (encode_to_server(INIT, 7) + b"\0", 7, RunnerProtocolError),
        (encode_to_server(INIT, 7), 3, RunnerProtocolError),
        (encode_to_server(INIT, 7), 8, RunnerProtocolError),
        (encode_to_server(ToServerInit("a\0b", 1, 10, None, None), 7), 7, RunnerProtocolError),
        (encode_to_server(ToServerInit("", 1, 10, None, None), 7), 7, RunnerProtocolError),
        (encode_to_server(ToServerInit("a" * 1025, 1, 10, None, None), 7), 7, RunnerProtocolError),
        (encode_to_server(ToServerInit("a", 1, 10, None, "x" * MAX_INIT_BYTES), 7), 7, RunnerProtocolError),
        (encode_to_server(ToServerInit("a", 1, 10, MANY_NAMES, None), 7), 7, RunnerProtocolError),
        (encode_to_server(ToServerStopping(), 7), 7, InvalidInitialPacket),
    ],
)
def test_any_other_first_frame_is_refused(frame, version, error):
    with pytest.raises(error):
        read_init(frame, version)


def test_actor_names_no_actor_can_have_are_left_out_of_an_init():
    names = {"ok": "{}", "": "{}", "a\0b": "{}", "a" * 1025: "{}", "ä" * 512: "{}"}
    init = read_init(encode_to_server(ToServerInit("pool", 1, 10, names, None), 7), 7)
    assert set(init.prepopulate_actor_names) == {"ok", "ä" * 512}


# Events


def event(index, inner=RUNNING, *, actor_id=ACTOR, generation=0):
    return EventWrapper(ActorCheckpoint(actor_id, generation, index), inner)


def ledger(*indexes):
    events = Events(RUNNER)
    events.hear([event(index) for index in indexes], NOON)
    return events


def done(index, *, over=False, actor_id=ACTOR, generation=0):
    return (actor_id, generation, index, over)


def acks(events):
    return {(ack.actor_id, ack.generation): ack.index for ack in events.take_acks()}


@pytest.mark.parametrize(
    ("inner", "report"),
    [
        (RUNNING, {"t": "running"}),
        (STOPPED, {"t": "stopped", "ok": True, "message": None}),
        (
            EventActorStateUpdate(ActorStateStopped(StopCode.ERROR, "no")),
            {"t": "stopped", "ok": False, "message": "no"},
        ),
        (
            EventActorStateUpdate(ActorStateStopped(StopCode.ERROR, "\0" + "x" * 5_000)),
            {"t": "stopped", "ok": False, "message": "\ufffd" + "x" * 999},  # what a row can keep
        ),
        (EventActorIntent(ActorIntentSleep()), {"t": "sleep_intent"}),
        (EventActorIntent(ActorIntentStop()), {"t": "stop_intent"}),
        (EventActorSetAlarm(5), {"t": "alarm", "at_ms": 5}),
        (EventActorSetAlarm(None), {"t": "alarm", "at_ms": None}),
    ],
)
def test_an_event_is_a_signal_to_its_actor(inner, report):
    place = {"runner_id": RUNNER, "generation": 3, "index": 4}
    signal = {"t": "from_runner", **place, "report": report, "heard_at": NOON.isoformat()}
    assert Events(RUNNER).hear([event(4, inner, generation=3)], NOON) == [(ACTOR, signal)]


def afters(letters):
    return [signal.get("after") for _, signal in letters]


def test_an_event_names_the_one_before_it_of_the_same_life():
    events = Events(RUNNER)
    said = [event(0), event(0, actor_id=OTHER), event(2), event(0, generation=1), event(3), event(1, generation=1)]
    assert afters(events.hear(said, NOON)) == [None, None, 0, None, 2, 0]
    events.processed([done(index) for index in (0, 2, 3)])
    assert afters(events.hear([event(4)], NOON)) == [3]
    assert afters(events.hear([event(2), event(3)], NOON)) == [None, None], "what was heard before stands alone"
    assert afters(events.hear([event(5)], NOON)) == [4]


def test_nothing_of_a_returned_runner_is_passed_on_before_it_has_repeated_itself():
    """It may say what is new before what the former connection has lost."""
    events = Events(RUNNER, silent_since=NOON - timedelta(seconds=1))
    assert events.hear([event(2)], NOON) == []
    assert events.hear([event(index) for index in (0, 1, 2)] + [event(0, actor_id=OTHER)], NOON) == []
    letters = events.returned(NOON)
    assert [signal["index"] for actor_id, signal in letters if actor_id == ACTOR] == [0, 1, 2]
    assert events.seen == {(ACTOR, 0), (OTHER, 0)}
    assert events.returned(NOON) == []


def test_a_returned_runner_that_says_more_than_can_be_kept_is_heard_before():
    events = Events(RUNNER, silent_since=NOON)
    assert events.hear([event(index) for index in range(MAX_UNDER_WAY - 1)], NOON) == []
    assert len(events.hear([event(MAX_UNDER_WAY)], NOON)) == MAX_UNDER_WAY


def test_what_a_returned_runner_repeats_may_have_been_said_before_it_was_gone():
    events = Events(RUNNER, silent_since=NOON - timedelta(seconds=1))
    events.hear([event(0)], NOON)
    [(_, repeated)] = events.returned(NOON)
    [(_, new)] = events.hear([event(1)], NOON)
    assert [signal["heard_at"] for signal in (repeated, new)] == [
        (NOON - timedelta(seconds=1)).isoformat(),
        NOON.isoformat(),
    ]
    assert events.repeat(timedelta(), NOON) == [], "it is not late"


def test_an_event_under_way_is_not_sent_twice_but_one_dealt_with_is():
    events = ledger(0)
    assert events.hear([event(0)], NOON) == []
    events.processed([done(0)])
    assert len(events.hear([event(0)], NOON)) == 1, "its ack may have been lost"


@pytest.mark.parametrize(
    "actor_id",
    ["", "act1", ACTOR.upper(), ACTOR + "0", "ä" * 30],
    ids=["empty", "short", "capitals", "long", "foreign letters"],
)
def test_an_event_of_an_id_that_is_not_ours_is_ignored(actor_id):
    events = Events(RUNNER)
    assert events.hear([event(0, actor_id=actor_id), event(0)], NOON) != []
    assert events.seen == {(ACTOR, 0)}


def test_what_is_not_dealt_with_is_said_again_after_a_while_and_then_after_another():
    """And with it what follows it: that cannot be decided without it."""
    events = ledger(0)
    second = timedelta(seconds=1)
    events.hear([event(1), event(0, actor_id=OTHER)], NOON + second)

    def repeated(patience, seconds):
        now = NOON + seconds * second
        return [(actor_id, signal["index"]) for actor_id, signal in events.repeat(patience * second, now)]

    assert repeated(2, 3) == [(ACTOR, 0), (ACTOR, 1)]
    assert repeated(1.5, 3) == [(OTHER, 0)]
    events.processed([done(0), done(1), done(0, actor_id=OTHER)])
    assert repeated(1, 30) == []


def test_the_more_often_it_was_said_the_longer_it_is_left_alone():
    """While workers are late, more of the same would make them later."""
    events, second = ledger(0), timedelta(seconds=1)
    said_at = [at for at in range(100) if events.repeat(second, NOON + at * second)]
    assert said_at == [2, 5, 10, 19, 36, 53, 70, 87]


def test_the_last_event_of_a_living_actor_is_never_acknowledged():
    events = ledger(0)
    events.processed([done(0)])
    assert acks(events) == {}
    events.hear([event(1), event(2)], NOON)
    events.processed([done(1)])
    events.processed([done(2)])
    assert acks(events) == {(ACTOR, 0): 1}
    assert acks(events) == {}, "an ack is due once"


def test_a_life_that_is_over_is_acknowledged_to_its_end_and_forgotten():
    events = ledger(0)
    events.hear([event(1, STOPPED)], NOON)
    events.processed([done(0), done(1, over=True)])
    assert acks(events) == {(ACTOR, 0): 1}
    assert events.seen == set()


def test_a_stale_message_takes_no_ack_back():
    events = ledger(0, 1, 2, 3)
    events.processed([done(3)])
    events.processed([done(1)])
    assert acks(events) == {(ACTOR, 0): 2}


@pytest.mark.parametrize("late", [False, True])
def test_nothing_of_an_older_life_is_acknowledged_once_the_next_was_started(late):
    """An npm client would let it prune what the next life has said."""
    events = ledger(0)
    events.hear([event(1, STOPPED)], NOON)
    if late:
        events.start(ACTOR, 1)
    events.processed([done(0), done(1, over=True)])
    if not late:
        events.start(ACTOR, 1)
    assert acks(events) == {}
    events.hear([event(0, generation=1), event(1, generation=1)], NOON)
    events.processed([done(1, generation=1)])
    assert acks(events) == {(ACTOR, 1): 0}


def test_a_later_life_of_one_actor_touches_no_other_actors_acks():
    events = ledger(0, 1)
    events.processed([done(1)])
    events.start(OTHER, 7)
    assert acks(events) == {(ACTOR, 0): 0}


def test_a_life_is_followed_by_any_later_one_that_was_started_or_has_spoken():
    events = Events(RUNNER)
    assert not events.is_followed((ACTOR, 0))
    events.start(ACTOR, 1)
    assert [events.is_followed((ACTOR, generation)) for generation in (0, 1, 2)] == [True, False, False]
    assert not events.is_followed((OTHER, 0))
    events = Events(RUNNER, silent_since=NOON)
    events.hear([event(0, generation=3)], NOON)
    assert events.is_followed((ACTOR, 2)), "a returned runner has repeated it"


moves = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 3)),
        st.tuples(st.just("hear"), st.integers(0, 3), st.integers(0, 5)),
        st.tuples(st.just("done"), st.integers(0, 3), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("take")),
    )
)


@given(moves)
def test_whatever_happens_an_ack_prunes_nothing_that_a_present_life_still_needs(script):
    """Needed is the newest event of the newest life that is not over."""
    events, newest, said, over = Events(RUNNER), -1, {}, set()
    for move in script:
        match move:
            case ("start", generation):
                events.start(ACTOR, generation)
                newest = max(newest, generation)
            case ("hear", generation, index):
                events.hear([event(index, generation=generation)], NOON)
                said[generation] = max(index, said.get(generation, -1))
                newest = max(newest, generation)
            case ("done", generation, index, ended) if index <= said.get(generation, -1):
                events.processed([done(index, over=ended, generation=generation)])
                over |= {generation} if ended else set()
            case ("take",):
                for ack in events.take_acks():
                    if newest not in over and newest in said:
                        assert ack.generation == newest
                        assert ack.index < said[newest]


# The command log


def test_commands_are_sent_in_order_and_once():
    cursor = CommandCursor(held=False)
    assert [cursor.next_is(seq) for seq in (1, 2, 2, 1)] == [True, True, False, False]
    assert not cursor.behind


def test_a_gap_is_noticed_and_closed():
    cursor = CommandCursor(held=False)
    assert not cursor.next_is(3)
    assert cursor.behind
    cursor.skip_to(3)
    assert not cursor.behind
    assert cursor.next_is(4)
    cursor.skip_to(2)
    assert cursor.sent_seq == 4, "it never goes back"


def test_nothing_is_sent_to_a_runner_that_has_not_spoken_yet():
    cursor = CommandCursor(held=True)
    assert not cursor.next_is(1)
    assert not cursor.behind
    cursor.held = False
    assert cursor.behind, "what came meanwhile has to be read from the log"


log_moves = st.lists(
    st.one_of(st.just("append"), st.just("read"), st.integers(1, 20)), max_size=60
)  # a number: the message of that entry arrives, for the first time or again, or would if there were one


@given(log_moves)
def test_a_runner_is_sent_a_prefix_of_its_log_whatever_is_lost_late_or_repeated(moves):
    """I8."""
    cursor, newest = CommandCursor(held=False), 0
    sent: list[int] = []
    for move in moves:
        match move:
            case "append":
                newest += 1
            case "read":
                if cursor.behind:
                    sent += range(cursor.sent_seq + 1, newest + 1)
                    cursor.skip_to(newest)
            case seq if seq <= newest and cursor.next_is(seq):
                sent.append(seq)
        assert sent == list(range(1, len(sent) + 1))
    assert cursor.sent_seq == len(sent)
