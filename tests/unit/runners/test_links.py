"""What is known of the way between gateways and a runner: numbers, gaps, doubts."""

from hypothesis import given, strategies as st

from runners.channel import UNNUMBERED, Frames
from runners.links import NOTICE, Flag, Links, Standing, decode_standing, encode_standing, request_id_of
from runners.protocol import codec
from runners.protocol.messages import (
    MessageId,
    ToClientRequestAbort,
    ToClientTunnelMessage,
    ToClientWebSocketMessage,
)

HERE, THERE = b"here", b"ther"


def frames(number, epoch=1, gateway=HERE):
    return Frames(gateway, epoch, number, (b"frame",))


def tunnel_frame(kind, gateway=HERE, request=b"req1"):
    message = ToClientTunnelMessage(MessageId(gateway, request, 7), kind)
    return codec.encode_to_client(message, codec.VERSIONS[-1])


MESSAGE = ToClientWebSocketMessage(b"x", binary=False)


def test_messages_are_taken_in_their_order_once():
    links = Links()
    assert [links.take(frames(number)) for number in (0, 1, 1, 0, 2)] == [True, True, False, False, True]
    assert links.standing(HERE) == Standing(1, 3, Flag.LIVES)


def test_after_a_gap_nothing_is_taken_until_the_gateway_begins_anew():
    links = Links()
    links.take(frames(0))
    assert not links.take(frames(2))
    assert links.is_broken(HERE)
    assert links.standing(HERE) == Standing(1, 1, Flag.BROKEN | Flag.LIVES)
    assert not links.take(frames(1))
    assert links.take(frames(0, epoch=2))
    assert not links.take(frames(3, epoch=1))
    assert links.standing(HERE) == Standing(2, 1, Flag.LIVES)


def test_a_socket_that_hears_of_a_gateway_in_the_middle_has_missed_the_beginning():
    links = Links()
    assert not links.take(frames(1))
    assert links.is_broken(HERE)
    assert not links.is_broken(THERE)
    assert links.take(frames(0, gateway=THERE))


def test_each_gateways_messages_are_numbered_by_themselves():
    links = Links()
    for gateway in (HERE, HERE, THERE):
        links.sent(gateway)
    assert (links.next_number(HERE), links.next_number(THERE), links.next_number(b"none")) == (2, 1, 0)
    assert links.gateways() == {HERE, THERE}


def test_what_was_written_is_in_doubt_until_a_later_ping_is_answered():
    links = Links()
    links.wrote(tunnel_frame(MESSAGE, request=b"req1"))
    links.pinged(1)
    links.wrote(tunnel_frame(MESSAGE, request=b"req2"))
    links.pinged(2)  # says nothing of what came between
    links.ponged(2)
    assert links.standing(HERE, Flag.GONE).doubtful == {b"req1", b"req2"}
    links.ponged(1)
    assert links.standing(HERE, Flag.GONE).doubtful == {b"req2"}
    links.pinged(3)
    links.ponged(3)
    assert links.standing(HERE, Flag.GONE) == Standing(0, 0, Flag.GONE | Flag.LIVES)


def test_each_gateway_hears_of_its_own_doubts():
    links = Links()
    links.wrote(tunnel_frame(MESSAGE, HERE, b"req1"))
    links.wrote(tunnel_frame(MESSAGE, THERE, b"req2"))
    assert links.standing(THERE, Flag.GONE).doubtful == {b"req2"}
    assert links.gateways() == {HERE, THERE}
    assert links.standing(THERE).doubtful == frozenset()


def test_requests_look_after_themselves():
    links = Links()
    links.wrote(tunnel_frame(ToClientRequestAbort()))
    assert links.gateways() == set()


def test_a_frame_says_whose_it_is():
    assert request_id_of(tunnel_frame(MESSAGE, request=b"abcd")) == b"abcd"


def test_no_socket_is_taken_for_another_or_for_none():
    assert len({Links().nonce for _ in range(100)} | {UNNUMBERED}) == 101


@given(
    st.builds(
        Standing,
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.sampled_from([Flag.NONE, Flag.BROKEN, Flag.GONE, Flag.GONE | Flag.BROKEN]),
        st.frozensets(st.binary(min_size=4, max_size=4)),
    )
)
def test_a_standing_travels_as_a_notice(standing):
    encoded = encode_standing(standing)
    assert encoded[0] == NOTICE
    assert decode_standing(encoded) == standing
