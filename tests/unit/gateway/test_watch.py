"""What a gateway knows of an actor, from its messages and its row."""

import json

import pytest

from gateway.errors import ActorNotFound, ActorStopped
from gateway.watch import Exchange, Look, Route, Watch


def watch_with(*messages):
    watch = Watch("actor")
    for message in messages:
        watch.hear(json.dumps(message).encode())
    return watch


def ready(generation, runner="r"):
    return {"m": "ready", "runner": runner, "generation": generation}


def stopped(generation):
    return {"m": "stopped", "generation": generation}


def stopping(generation):
    return {"m": "stopping", "generation": generation}


@pytest.mark.parametrize(
    ("messages", "route"),
    [
        ([ready(0)], Route("r", 0)),
        ([ready(0), stopping(0)], None),
        ([ready(0), stopped(0)], None),
        ([ready(0), stopped(0), ready(1, "s")], Route("s", 1)),
        ([stopped(0), ready(0)], None),
        ([ready(1), stopped(0)], Route("r", 1)),
        ([ready(1), stopping(0)], Route("r", 1)),
        ([ready(0), {"m": "destroyed"}], None),
    ],
)
def test_the_route_follows_the_newest_generation(messages, route):
    assert watch_with(*messages).route == route


def with_exchange(watch, generation):
    ends = []
    exchange = Exchange(Route("r", generation), 0.0, ends.append)
    watch.join(exchange)
    return ends


def test_a_stop_ends_the_exchanges_of_that_generation_and_older_ones_only():
    watch = watch_with(ready(1))
    old, new = with_exchange(watch, 1), with_exchange(watch, 2)
    watch.hear(json.dumps(stopped(1)).encode())
    assert [type(end) for end in old] == [ActorStopped]
    assert new == []
    watch.hear(json.dumps(stopped(1)).encode())
    assert len(old) == 1, "a message that comes twice ends nothing twice"


@pytest.mark.parametrize(
    ("message", "generation", "error"),
    [
        (stopped(1), 1, ActorStopped),
        (stopped(1), 0, ActorStopped),
        (stopped(1), 2, None),
        (stopping(1), 1, None),
        ({"m": "destroyed"}, 1, ActorNotFound),
    ],
)
def test_a_request_that_sets_out_on_a_route_of_yesterday_ends_at_once(message, generation, error):
    watch, ends = watch_with(ready(1), message), []
    watch.join(Exchange(Route("r", generation), 0.0, ends.append))
    assert [type(end) for end in ends] == ([] if error is None else [error])


@pytest.mark.parametrize(
    ("first", "second", "stops"),
    [
        (Look(True, generation=4), Look(True, generation=5, runner_id="r", connectable=True), 0),
        (Look(True, generation=4, runner_id="r"), Look(True, generation=4), 1),
        (Look(True, generation=4, runner_id="r", connectable=True), Look(True, generation=6, runner_id="s"), 1),
    ],
)
def test_only_what_stops_after_the_first_look_counts_as_a_stop(first, second, stops):
    watch = Watch("actor")
    watch.look(first)
    assert watch.stops == 0
    watch.look(second)
    assert watch.stops == stops


def test_going_to_sleep_leaves_requests_in_flight_alone():
    watch = watch_with(ready(0))
    ends = with_exchange(watch, 0)
    watch.hear(json.dumps(stopping(0)).encode())
    assert ends == []


def test_destruction_ends_everything_and_asks_for_a_receipt():
    watch = watch_with(ready(0))
    ends = with_exchange(watch, 0)
    assert watch.hear(b'{"m":"destroyed","receipt":"box"}') == "box"
    assert [type(end) for end in ends] == [ActorNotFound]
    assert watch.destroyed


@pytest.mark.parametrize(
    ("look", "route", "stops"),
    [
        (Look(True, generation=0, runner_id="r", connectable=True), Route("r", 0), 0),
        (Look(True, generation=1, runner_id="s", connectable=True), Route("s", 1), 1),
        (Look(True, generation=0, runner_id="r"), None, 0),  # stopping: in flight may still be answered
        (Look(True, generation=0), None, 1),  # asleep: its stop was missed
        (Look(True, generation=1, runner_id="s"), None, 1),  # starting again
    ],
)
def test_the_row_tells_what_a_lost_message_would_have(look, route, stops):
    watch = watch_with(ready(0))
    ends = with_exchange(watch, 0)
    watch.look(look)
    assert watch.route == route
    assert len(ends) == stops


@pytest.mark.parametrize("look", [Look(exists=False), Look(True, destroyed=True)])
def test_a_row_that_is_gone_ends_everything(look):
    watch = watch_with(ready(0))
    ends = with_exchange(watch, 0)
    watch.look(look)
    assert watch.destroyed
    assert [type(end) for end in ends] == [ActorNotFound]


def test_an_older_row_changes_nothing():
    watch = watch_with(ready(2), stopped(2))
    watch.look(Look(True, generation=1, runner_id="r", connectable=True))
    assert watch.route is None


def test_exchanges_are_told_when_their_runner_has_come_back():
    watch = watch_with(ready(1))
    told = []
    for runner_id in ("r", "s"):
        returned = lambda seconds, *, untold, who=runner_id: told.append((who, seconds, untold))  # noqa: E731
        watch.join(Exchange(Route(runner_id, 1), 0.0, [].append, returned))
    watch.join(Exchange(Route("r", 1), 0.0, [].append))  # a WebSocket, which finds out by itself
    watch.hear(json.dumps({"m": "returned", "runner": "r", "seconds": 0.5, "untold": True}).encode())
    assert told == [("r", 0.5, True)]
    assert watch.route == Route("r", 1)
