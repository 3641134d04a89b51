import pytest
from hypothesis import given, strategies as st

from runners.protocol.messages import (
    ActorCheckpoint,
    ActorConfig,
    ActorStateRunning,
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    ProtocolMetadata,
)
from runners.sdk.session.arrivals import Arrival, judge
from runners.sdk.session.budget import StopBudget, stop_budget
from runners.sdk.session.commands import CommandLog, acknowledgements
from runners.sdk.session.history import EventHistory
from runners.sdk.session.reconnect import connect_url, is_eviction, pause_s, subprotocols

RUNNING = EventActorStateUpdate(ActorStateRunning())


def alarm(number: int) -> EventActorSetAlarm:
    return EventActorSetAlarm(number)


def event(actor_id: str, generation: int, index: int, inner: object) -> EventWrapper:
    return EventWrapper(ActorCheckpoint(actor_id, generation, index), inner)


def start(actor_id: str, generation: int, index: int) -> CommandWrapper:
    config = ActorConfig("counter", None, 1, None)
    return CommandWrapper(ActorCheckpoint(actor_id, generation, index), CommandStartActor(config, []))


def stop(actor_id: str, generation: int, index: int) -> CommandWrapper:
    return CommandWrapper(ActorCheckpoint(actor_id, generation, index), CommandStopActor())


class TestEventHistory:
    def test_events_are_numbered_from_0_per_actor_and_generation(self):
        history = EventHistory()
        recorded = [history.record(*life, RUNNING) for life in [("a", 0), ("b", 0), ("a", 0), ("a", 1)]]
        assert [wrapper.checkpoint for wrapper in recorded] == [
            ActorCheckpoint("a", 0, 0),
            ActorCheckpoint("b", 0, 0),
            ActorCheckpoint("a", 0, 1),
            ActorCheckpoint("a", 1, 0),
        ]

    def test_unacknowledged_events_come_again_in_the_order_of_sending(self):
        history = EventHistory()
        sent = [history.record(actor, 0, alarm(i)) for i, actor in enumerate("abcabba")]
        history.end("b", 0)
        assert list(history.unacknowledged()) == sent

    def test_an_acknowledgement_covers_everything_up_to_its_index_of_its_generation(self):
        history = EventHistory()
        for generation in (0, 1):
            for i in range(3):
                history.record("a", generation, alarm(i))
        history.acknowledge([ActorCheckpoint("a", 1, 1), ActorCheckpoint("unknown", 0, 9)])
        left = [wrapper.checkpoint for wrapper in history.unacknowledged()]
        assert left == [ActorCheckpoint("a", 0, i) for i in range(3)] + [ActorCheckpoint("a", 1, 2)]

    def test_numbering_goes_on_after_everything_is_acknowledged(self):
        history = EventHistory()
        history.record("a", 0, RUNNING)
        history.acknowledge([ActorCheckpoint("a", 0, 0)])
        assert history.record("a", 0, alarm(1)).checkpoint.index == 1

    def test_a_new_generation_makes_the_engine_forget_the_earlier_ones(self):
        history = EventHistory()
        for generation in (0, 1, 2):
            history.record("a", generation, RUNNING)
        history.record("b", 0, RUNNING)
        history.begin("a", 2)
        assert [wrapper.checkpoint for wrapper in history.unacknowledged()] == [
            ActorCheckpoint("a", 2, 0),
            ActorCheckpoint("b", 0, 0),
        ]

    def test_of_ended_lives_only_so_many_events_are_kept_and_the_living_keep_theirs(self):
        history = EventHistory(ended_events=3)
        history.record("living", 0, RUNNING)
        for actor in "abc":
            history.record(actor, 0, RUNNING)
            history.record(actor, 0, alarm(1))
            history.end(actor, 0)
        assert [wrapper.checkpoint.actor_id for wrapper in history.unacknowledged()] == ["living", "c", "c"]

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["record", "ack", "end"]))))
    def test_only_ended_events_within_the_limit_and_living_ones_remain(self, steps):
        history, ended, limit = EventHistory(ended_events=2), set(), 2
        generation = dict.fromkeys("ab", 0)
        living: dict[str, list[EventWrapper]] = {"a": [], "b": []}
        for actor, step in steps:
            if step == "record":
                living[actor].append(history.record(actor, generation[actor], alarm(1)))
            elif step == "ack" and living[actor]:
                history.acknowledge([living[actor].pop(0).checkpoint])
            elif step == "end":
                history.end(actor, generation[actor])
                ended.update(wrapper.checkpoint for wrapper in living[actor])
                living[actor], generation[actor] = [], generation[actor] + 1
        left = history.unacknowledged()
        assert [w for w in left if w.checkpoint not in ended] == sorted(
            [w for events in living.values() for w in events], key=left.index
        )
        assert sum(w.checkpoint in ended for w in left) <= limit

    def test_after_a_change_of_the_runners_id_nothing_is_left(self):
        history = EventHistory()
        history.record("a", 0, RUNNING)
        history.end("a", 0)
        history.record("b", 0, RUNNING)
        history.clear()
        assert history.unacknowledged() == ()


ADMITTED = [  # commands of actor "a" in order, and which of them act
    ("the first", [start("a", 0, 0)], [True]),
    ("a first that is not numbered 0", [start("a", 1, 1)], [True]),
    ("the same start again", [start("a", 0, 0), start("a", 0, 0)], [True, False]),
    ("start and stop", [start("a", 0, 0), stop("a", 0, 1)], [True, True]),
    ("a start after its stop", [start("a", 0, 0), stop("a", 0, 1), start("a", 0, 0)], [True, True, False]),
    ("the next generation", [start("a", 0, 0), stop("a", 0, 1), start("a", 1, 0)], [True, True, True]),
    ("an old start", [start("a", 1, 0), start("a", 0, 0)], [True, False]),
    ("an old stop", [start("a", 1, 0), stop("a", 0, 7)], [True, False]),
    ("a stop numbered like its start", [start("a", 0, 0), stop("a", 0, 0)], [True, True]),
    ("another actor", [start("a", 3, 5), start("b", 0, 0)], [True, True]),
]


class TestCommandLog:
    @pytest.mark.parametrize(("case", "commands", "acts"), ADMITTED)
    def test_only_news_is_acted_upon(self, case, commands, acts):
        log = CommandLog()
        assert [log.admit(command) for command in commands] == acts

    def test_an_actor_that_is_gone_is_still_remembered(self):
        log = CommandLog()
        log.admit(start("a", 0, 0))
        log.end("a")
        assert not log.admit(start("a", 0, 0))
        assert log.admit(start("a", 1, 0))

    def test_so_many_actors_that_are_gone_are_remembered_and_all_that_are_here(self):
        log = CommandLog(ended_actors=1)
        for actor in "abc":
            log.admit(start(actor, 0, 0))
        log.end("a")
        log.end("b")
        assert [log.admit(start(actor, 0, 0)) for actor in "abc"] == [True, False, False]

    def test_all_is_news_under_a_new_id(self):
        log = CommandLog()
        for actor in "ab":
            log.admit(start(actor, 0, 0))
        log.end("b")
        log.clear()
        assert [log.admit(start(actor, 0, 0)) for actor in "ab"] == [True, True]

    def test_each_generation_is_acknowledged_by_its_greatest_index(self):
        commands = [start("a", 0, 0), stop("a", 0, 1), start("b", 2, 0), start("a", 1, 0)]
        assert acknowledgements(commands) == (
            ActorCheckpoint("a", 0, 1),
            ActorCheckpoint("b", 2, 0),
            ActorCheckpoint("a", 1, 0),
        )


class TestReconnecting:
    @pytest.mark.parametrize(
        ("endpoint", "url"),
        [
            ("http://127.0.0.1:6420", "ws://127.0.0.1:6420/runners/connect?"),
            ("http://127.0.0.1:6420/", "ws://127.0.0.1:6420/runners/connect?"),
            ("https://engine.example", "wss://engine.example/runners/connect?"),
            ("ws://[::1]:1", "ws://[::1]:1/runners/connect?"),
            ("https://example.com/torpor/", "wss://example.com/torpor/runners/connect?"),
        ],
    )
    def test_the_url_is_derived_from_the_endpoint(self, endpoint, url):
        query = "protocol_version=7&namespace=a%20b%2Fc&runner_key=k"
        assert connect_url(endpoint, namespace="a b/c", key="k") == url + query

    @pytest.mark.parametrize("endpoint", ["", "127.0.0.1:6420", "/x", "ftp://example.com", "http://", "http:///x"])
    def test_what_is_no_endpoint_is_refused(self, endpoint):
        with pytest.raises(ValueError, match="endpoint"):
            connect_url(endpoint, namespace="default", key="k")

    def test_a_token_is_offered_after_the_protocol(self):
        assert subprotocols(None) == ["rivet"]
        assert subprotocols("s3cret!") == ["rivet", "rivet_token.s3cret!"]

    @pytest.mark.parametrize("token", ["", "a b", "a,b", "ä", 'a"', "a\n"])
    def test_a_token_no_header_can_carry_is_refused(self, token):
        with pytest.raises(ValueError, match="token"):
            subprotocols(token)

    def test_pauses_double_from_a_tenth_of_a_second_to_ten(self):
        assert [pause_s(attempt, 0.0) for attempt in range(4)] == [0.1, 0.2, 0.4, 0.8]
        assert pause_s(7, 0.0) == pause_s(10_000, 0.0) == 10.0

    @given(st.integers(min_value=0), st.floats(0, 1, exclude_max=True))
    def test_jitter_makes_a_pause_longer_by_at_most_a_quarter(self, attempt, jitter):
        assert pause_s(attempt, 0.0) <= pause_s(attempt, jitter) <= 1.25 * pause_s(attempt, 0.0)

    @pytest.mark.parametrize(
        ("reason", "evicted"),
        [
            ("ws.eviction", True),
            ("ws.eviction#abc123", True),
            ("", False),
            ("ws.going_away#abc", False),
            ("ws.evictions", False),
            ("guard.eviction", False),
            ("x#ws.eviction", False),
        ],
    )
    def test_one_reason_alone_means_not_to_come_back(self, reason, evicted):
        assert is_eviction(reason) is evicted


class TestStopBudget:
    @pytest.mark.parametrize(
        ("stop_ms", "grace_ms", "asked", "budget"),
        [
            (1_800_000, None, True, StopBudget(300.0, 1799.0)),  # the gateway waits 5 min, no longer
            (31_000, None, True, StopBudget(20.0, 30.0)),
            (1_800_000, None, False, StopBudget(29 * 2 / 3, 29.0)),
            (1_800_000, 10_000, False, StopBudget(6.0, 9.0)),
            (1_800_000, 10_000, True, StopBudget(300.0, 1799.0)),
            (4_000, 10_000, False, StopBudget(2.0, 3.0)),
            (1_800_000, 600, False, StopBudget(0.2, 0.3)),
            (0, None, True, StopBudget(0.0, 0.0)),
        ],
    )
    def test_a_stop_nobody_asked_for_must_fit_into_the_drains_grace(self, stop_ms, grace_ms, asked, budget):
        found = stop_budget(ProtocolMetadata(15_000, stop_ms, grace_ms), asked=asked)
        assert (found.requests_s, found.total_s) == pytest.approx((budget.requests_s, budget.total_s))


@pytest.mark.parametrize(
    ("last", "index", "arrival"),
    [
        (0, 1, Arrival.NEXT),
        (0, 0, Arrival.REPEATED),
        (5, 3, Arrival.REPEATED),
        (0, 2, Arrival.GAP),
        (65_535, 0, Arrival.NEXT),
        (65_535, 1, Arrival.GAP),
        (0, 65_535, Arrival.REPEATED),
        (0, 32_766, Arrival.GAP),
        (0, 32_767, Arrival.REPEATED),
    ],
)
def test_a_sockets_message_is_next_repeated_or_after_a_gap_also_where_indexes_wrap(last, index, arrival):
    assert judge(last, index) is arrival
