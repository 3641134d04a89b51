"""Messages between the processes, as bytes."""

import pytest
from hypothesis import given, strategies as st

from orchestrator.ids import new_id
from runners.channel import (
    ANY_LIFE,
    Evict,
    Frames,
    FromRunner,
    LogEntry,
    Probe,
    Processed,
    TunnelFrame,
    actor_channel,
    decode,
    decode_from_runner,
    encode,
    encode_from_runner,
    gateway_channel,
    runner_channel,
)

ids = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=30, max_size=30)
messages = st.one_of(
    st.builds(TunnelFrame, st.binary()),
    st.builds(
        Frames,
        st.binary(min_size=4, max_size=4),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.lists(st.binary()).map(tuple),
    ),
    st.builds(
        lambda framed: Frames(b"gate", 1, 2, tuple(one for one, _ in framed), tuple(life for _, life in framed)),
        st.lists(
            st.tuples(st.binary(), st.tuples(ids, st.integers(0, 2**32 - 1)) | st.just(ANY_LIFE)), min_size=1
        ),
    ),
    st.builds(Probe, st.binary(min_size=4, max_size=4)),
    st.builds(LogEntry, st.integers(0, 2**64 - 1), st.binary()),
    st.builds(
        Processed,
        st.lists(st.tuples(st.text(), st.integers(0, 2**32 - 1), st.integers(-1, 2**63 - 1), st.booleans())).map(
            tuple
        ),
    ),
    st.builds(Evict, ids | st.just("")),
)


def test_channels_have_their_names():
    assert runner_channel("r1") == "runner:r1"
    assert actor_channel("a1") == "actor:a1"
    assert gateway_channel(bytes.fromhex("0a0b0c0d")) == "gateway:0a0b0c0d"


@given(messages)
def test_decoding_undoes_encoding(message):
    assert decode(encode(message)) == message


def test_a_tunnel_frame_travels_as_it_is():
    assert encode(TunnelFrame(b"\x04abc")) == b"T\x04abc"


@pytest.mark.parametrize("payload", [b"A{", b"Anull", b'A[["a",1]]', b"C123", b"E\xff"])
def test_anything_else_is_refused(payload):
    with pytest.raises(ValueError):  # noqa: PT011
        decode(payload)


@pytest.mark.parametrize("payload", [b"", b"X", b"t", b"Z of a later release"])
def test_a_kind_that_a_later_release_has_added_is_passed_over(payload):
    assert decode(payload) is None


def test_what_a_later_release_has_added_to_an_event_is_passed_over():
    assert decode(b'A[["a",1,2,true,{"x":1}]]') == Processed((("a", 1, 2, True),))


@given(st.binary(), st.binary(min_size=4, max_size=4), st.integers(0, 2**64 - 1))
def test_a_runners_frame_goes_to_a_gateway_with_the_runners_id(frame, nonce, number):
    message = FromRunner(new_id(), frame, nonce, number)
    assert decode_from_runner(encode_from_runner(message)) == message
