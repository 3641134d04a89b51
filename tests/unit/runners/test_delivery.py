"""What a pong proves."""

from runners.delivery import Deliveries, request_begun_by
from runners.protocol.codec import encode_to_client
from runners.protocol.messages import (
    MessageId,
    ToClientPing,
    ToClientRequestAbort,
    ToClientRequestChunk,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToClientWebSocketMessage,
)

START = ToClientRequestStart("actor", "GET", "/", {}, None, stream=False)
CHUNK = ToClientRequestChunk(b"", finish=False)


def frame(number, kind=START):
    message_id = MessageId(b"gate", bytes([0, 0, 0, number]), 0)
    return encode_to_client(ToClientTunnelMessage(message_id, kind), 7)


def requests(*numbers):
    return {(b"gate", bytes([0, 0, 0, number])) for number in numbers}


def test_a_pong_proves_what_was_sent_before_its_ping_and_nothing_later():
    deliveries = Deliveries()
    deliveries.sent(frame(1))
    deliveries.pinged(10)
    deliveries.sent(frame(2))
    deliveries.sent(frame(3))
    deliveries.pinged(20)
    deliveries.sent(frame(4))
    assert deliveries.unproven() == requests(1, 2, 3, 4)
    deliveries.ponged(10)
    assert deliveries.unproven() == requests(2, 3, 4)
    deliveries.ponged(20)
    assert deliveries.unproven() == requests(4)


def test_a_later_pong_proves_what_a_lost_one_would_have():
    deliveries = Deliveries()
    for ts_ms in (10, 20, 30):
        deliveries.sent(frame(ts_ms))
        deliveries.pinged(ts_ms)
    deliveries.ponged(20)
    assert deliveries.unproven() == requests(30)


def test_a_pong_to_no_ping_of_ours_proves_nothing():
    deliveries = Deliveries()
    deliveries.sent(frame(1))
    deliveries.pinged(10)
    deliveries.ponged(15)
    deliveries.ponged(5)
    assert deliveries.unproven() == requests(1)


def test_a_request_may_lack_a_part():
    deliveries = Deliveries()
    deliveries.sent(frame(1))
    deliveries.pinged(10)
    deliveries.ponged(10)
    deliveries.sent(frame(1, CHUNK))
    assert deliveries.unproven() == requests(1)


def test_only_requests_are_told_of():
    deliveries = Deliveries()
    for number, kind in enumerate((ToClientRequestAbort(), ToClientWebSocketMessage(b"x", binary=True))):
        deliveries.sent(frame(number, kind))
    assert deliveries.unproven() == set()


def test_a_frame_begins_a_request_or_does_not():
    assert {request_begun_by(frame(1))} == requests(1)
    assert request_begun_by(frame(1, CHUNK)) is None
    assert request_begun_by(encode_to_client(ToClientPing(1), 7)) is None
    assert request_begun_by(b"") is None
