"""What runners say to a sleeping WebSocket: kept for whoever has the actor, all of it or nothing."""

from gateway.stash import STASH_BYTES, Stash
from runners.protocol.messages import ToServerWebSocketMessage, ToServerWebSocketMessageAck


def says(size):
    return ToServerWebSocketMessage(b"x" * size, binary=True)


def test_only_what_the_actors_runner_has_said_is_had_from_it_in_order_and_once():
    stash = Stash()
    said = [says(1), ToServerWebSocketMessageAck(7), says(2)]
    for kind in said:
        stash.put("mine", kind)
        stash.put("another", says(3))
    assert stash.take("mine") == said
    assert stash.take("mine") == stash.take("another") == []


def test_of_too_much_nothing_is_given_out_and_then_it_is_empty():
    stash = Stash()
    stash.put("mine", says(STASH_BYTES // 2))
    stash.put("another", says(STASH_BYTES // 2))
    assert stash.take("mine") is None
    assert stash.take("mine") == []
