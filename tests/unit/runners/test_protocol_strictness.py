"""Frames no peer should send: each is refused with RunnerProtocolError, whatever it is, and nothing else."""

import contextlib
import traceback
import tracemalloc

import pytest
from hypothesis import given, settings, strategies as st

from runners.errors import RunnerProtocolError
from runners.protocol.bare import MAX_ITEMS, pack_uint
from runners.protocol.codec import (
    VERSIONS,
    decode_serverless_init,
    decode_to_client,
    decode_to_server,
    encode_to_client,
    encode_to_server,
)
from tests.unit.runners import protocol_strategies as any_

DECODERS = {"ToServer": decode_to_server, "ToClient": decode_to_client}
IDS = "01020304a1b2c3d40000"
REFUSED = [
    # what is wrong, which side's frame, its hex, the byte the error names
    ("frame ends too early", "ToServer", "", 0),
    ("frame ends too early", "ToClient", "", 0),
    ("frame ends too early", "ToServer", "04 0068e5cf8b0100", 8),
    ("frame ends too early", "ToServer", "06 01020304a1b2c3d400", 10),
    ("frame ends too early", "ToServer", f"06 {IDS} 00 c800 00", 15),
    ("frame ends too early", "ToServer", f"06 {IDS} 00 c8", 13),
    ("frame ends too early", "ToServer", f"06 {IDS} 00 c800 01 0161", 17),
    ("frame ends too early", "ToServer", "02 80", 2),
    ("text longer than the frame", "ToServer", "00 04706f6f", 1),
    ("text longer than the frame", "ToServer", f"06 {IDS} 00 c800 01 0161 0262", 18),
    ("text longer than the frame", "ToServer", f"06 {IDS} 00 c800 01 0161 02c3", 18),
    ("frame ends too early", "ToServer", f"06 {IDS} 00 c800 01 ffffffffffffffffff01", 25),
    ("data longer than the frame", "ToServer", f"06 {IDS} 04 03 6162", 12),
    ("data longer than the frame", "ToServer", f"06 {IDS} 04 ffffffffffffffffff01 61", 12),
    ("trailing bytes", "ToServer", "03 00", 1),
    ("trailing bytes", "ToServer", "04 0068e5cf8b010000 03", 9),
    ("trailing bytes", "ToServer", f"06 {IDS} 02 00", 12),
    ("trailing bytes", "ToClient", "05 0068e5cf8b010000 00", 9),
    ("unknown tag of ToServer", "ToServer", "07", 0),
    ("unknown tag of ToServer", "ToServer", "80 00", 0),
    ("unknown tag of ToClient", "ToClient", "06", 0),
    ("unknown tag of ToServerTunnelMessageKind", "ToServer", f"06 {IDS} 07", 11),
    ("unknown tag of ToClientTunnelMessageKind", "ToClient", f"04 {IDS} 06", 11),
    ("unknown tag of KvRequestData", "ToServer", "05 00 00000000 06", 6),
    ("unknown tag of KvListQuery", "ToServer", "05 00 00000000 01 03", 7),
    ("unknown tag of KvResponseData", "ToClient", "03 00000000 06", 5),
    ("unknown kind of Event", "ToServer", "01 01 00 00000000 0000000000000000 03 00", 16),
    ("unknown kind of Event", "ToServer", "01 01 00 00000000 0000000000000000 00 02", 16),
    ("unknown kind of Event", "ToServer", "01 01 00 00000000 0000000000000000 01 02", 16),
    ("unknown StopCode", "ToServer", "01 01 00 00000000 0000000000000000 01 01 02 00", 17),
    ("unknown tag of Command", "ToClient", "01 01 00 00000000 0000000000000000 02", 15),
    ("bool neither 0 nor 1", "ToServer", f"06 {IDS} 03 02", 12),
    ("bool neither 0 nor 1", "ToServer", f"06 {IDS} 00 c800 00 00 02", 16),
    ("bool neither 0 nor 1", "ToServer", "05 00 00000000 01 01 00 00 ff 00 00", 10),
    ("option neither 0 nor 1", "ToServer", "00 00 00000000 00000000 02 00", 10),
    ("option neither 0 nor 1", "ToServer", f"06 {IDS} 00 c800 00 02 00", 15),
    ("unknown kind of Event", "ToServer", "01 01 00 00000000 0000000000000000 02 02", 16),
    ("text not in UTF-8", "ToServer", "00 02c328 00000000 00000000 00 00", 1),
    ("text not in UTF-8", "ToServer", "00 03eda080 00000000 00000000 00 00", 1),  # half a surrogate pair
    ("text not in UTF-8", "ToServer", "00 02c080 00000000 00000000 00 00", 1),  # an overlong zero
    ("text not in UTF-8", "ToServer", f"06 {IDS} 00 c800 01 0161 01ff 00 00", 18),
    ("text not in UTF-8", "ToServer", f"06 {IDS} 00 c800 01 01ff 0161 00 00", 16),
    ("map with a key twice", "ToServer", f"06 {IDS} 00 c800 02 0161 0162 0161 0163 00 00", 14),
    ("map with a key twice", "ToServer", "00 00 00000000 00000000 01 02 00 00 00 00 00", 11),
    ("uint not in its shortest form", "ToServer", "00 8400706f6f6c 00000000 00000000 00 00", 1),
    ("uint not in its shortest form", "ToServer", "02 8000", 1),
    ("uint not in its shortest form", "ToServer", f"06 {IDS} 00 c800 8000 00 00", 14),
    ("uint not in its shortest form", "ToServer", f"06 {IDS} 04 818000 61 00", 12),
    ("uint of more than 64 bits", "ToServer", "02 80808080808080808002", 1),
    ("uint of more than 64 bits", "ToServer", "02 8080808080808080808001", 1),
    ("uint of more than 64 bits", "ToServer", "02 " + "ff" * 1000, 1),
    ("count of more items than the frame holds", "ToServer", "02 01 00", 1),
]


@pytest.mark.parametrize(("what", "kind", "digits", "at"), REFUSED)
def test_a_malformed_frame_is_refused_and_the_error_says_what_and_where(what, kind, digits, at):
    with pytest.raises(RunnerProtocolError) as caught:
        DECODERS[kind](bytes.fromhex(digits), 7)
    assert (str(caught.value), caught.value.metadata) == (f"{what} at byte {at}", {"at": at})


COUNTS = {  # frames up to a count, in version 7
    "events": ("ToServer", "01"),
    "acknowledged commands": ("ToServer", "02"),
    "actor names": ("ToServer", "00 00 00000000 00000000 01"),
    "keys": ("ToServer", "05 00 00000000 00"),
    "values": ("ToServer", "05 00 00000000 02 00"),
    "headers of a response": ("ToServer", f"06 {IDS} 00 c800"),
    "headers of a request": ("ToClient", f"04 {IDS} 00 00 00 00"),
    "commands": ("ToClient", "01"),
    "acknowledged events": ("ToClient", "02"),
    "metadata": ("ToClient", "03 00000000 01 00 00"),
    "hibernating requests": ("ToClient", "01 01 00 00000000 0000000000000000 00 00 00 0000000000000000 00"),
}


@pytest.mark.parametrize("count", ["81808001", "ffffffff0f", "ffffffffffffffffff01"])
@pytest.mark.parametrize(("kind", "digits"), COUNTS.values(), ids=COUNTS)
def test_a_count_beyond_the_frame_is_refused_before_anything_is_allocated(kind, digits, count):
    head = bytes.fromhex(digits)
    frame = head + bytes.fromhex(count) + bytes(2**20)  # empty keys and texts, as many as fit
    tracemalloc.start()
    try:
        with pytest.raises(RunnerProtocolError, match=f"more items than the frame holds at byte {len(head)}"):
            DECODERS[kind](frame, 7)
        assert tracemalloc.get_traced_memory()[1] < 2**16
    finally:
        tracemalloc.stop()


LISTS = {  # what a runner may send of each, in version 7: the frame up to the count, an item, what follows
    "events": ("01", "00 00000000 0000000000000000 01 00", ""),
    "acknowledged commands": ("02", "00 00000000 0000000000000000", ""),
    "keys to get": ("05 00 00000000 00", "00", ""),
    "keys to put": ("05 00 00000000 02", "00", "00"),
    "values to put": ("05 00 00000000 02 00", "00", ""),
    "keys to delete": ("05 00 00000000 03", "00", ""),
}


@pytest.mark.parametrize(("head", "item", "tail"), LISTS.values(), ids=LISTS)
def test_a_list_longer_than_anybody_needs_is_refused_before_it_is_read(head, item, tail):
    def frame(count):
        return bytes.fromhex(head) + pack_uint(count) + bytes.fromhex(item) * count + bytes.fromhex(tail)

    assert decode_to_server(frame(MAX_ITEMS), 7)
    with pytest.raises(RunnerProtocolError, match=f"count of more than {MAX_ITEMS} items at byte"):
        decode_to_server(frame(MAX_ITEMS + 1), 7)


def test_a_map_longer_than_anybody_needs_is_refused_before_it_is_read():
    headers = b"".join(b"\x03%c%c%c\x00" % (a, b, c) for a in range(48) for b in range(48) for c in range(48))
    frame = bytes.fromhex(f"06 {IDS} 00 c800") + pack_uint(48**3) + headers + b"\x00\x00"
    with pytest.raises(RunnerProtocolError, match=f"count of more than {MAX_ITEMS} items at byte"):
        decode_to_server(frame, 7)


@pytest.mark.parametrize("frame", ["", "\x03", None, 3, bytearray(b"\x03"), memoryview(b"\x03")])
@pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)
def test_what_is_not_bytes_is_no_frame(decode, frame):
    with pytest.raises(RunnerProtocolError, match="frame is not bytes"):
        decode(frame, 7)


@pytest.mark.parametrize(
    ("digits", "message"),
    [
        ("", "unknown protocol version"),
        ("0300 00 0472756e31", "unknown protocol version"),
        ("0007 00 0472756e31 0700", "unknown protocol version"),  # a prefix in the wrong byte order
        ("07", "frame ends too early at byte 1"),
        ("0700", "frame ends too early at byte 2"),
        ("0700 00 0472756e31 07", "frame ends too early at byte 9"),
        ("0700 00 0472756e31 0700 00", "trailing bytes at byte 10"),
        ("0700 01 0472756e31 0700", "unknown tag of ToServerlessServer at byte 2"),
        ("0700 00 0472756eff 0700", "text not in UTF-8 at byte 3"),
        ("0700 00 840072756e31 0700", "uint not in its shortest form at byte 3"),
    ],
)
def test_a_malformed_serverless_payload_is_refused(digits, message):
    with pytest.raises(RunnerProtocolError) as caught:
        decode_serverless_init(bytes.fromhex(digits))
    assert str(caught.value) == message


def test_an_error_never_shows_what_the_frame_carries():
    frame = bytes.fromhex(f"06 {IDS} 00 c800 01 0d") + b"authorization\x0fBearer s3cr3t-\xff\x00\x00"
    with pytest.raises(RunnerProtocolError) as caught:
        decode_to_server(frame, 7)
    told = "".join(traceback.format_exception(caught.value)) + str(caught.value.body())
    assert "s3cr3t" not in told
    assert "authorization" not in told


@st.composite
def damaged(draw, frames):
    """A valid frame with a few bytes changed, cut, doubled or put in."""
    frame = bytearray(draw(frames))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(frame)))
        end = draw(st.integers(at, min(at + 4, len(frame))))
        frame[at:end] = draw(
            st.sampled_from([b"", b"\x00", b"\x01", b"\x80", b"\xff", bytes(frame[at:end]) * 2])
            | st.binary(max_size=4)
        )
    return bytes(frame)


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_a_damaged_frame_of_a_runner_is_refused_or_says_what_it_is(version, data):
    valid = any_.to_server(version).map(lambda message: encode_to_server(message, version))
    frame = data.draw(damaged(valid) | st.binary(max_size=64))
    try:
        message = decode_to_server(frame, version)
    except RunnerProtocolError:
        return
    assert encode_to_server(message, version) == frame


@pytest.mark.parametrize("version", VERSIONS)
@given(data=st.data())
def test_a_damaged_frame_of_the_engine_is_refused_or_says_what_it_is(version, data):
    valid = any_.to_client(version).map(lambda message: encode_to_client(message, version))
    frame = data.draw(damaged(valid) | st.binary(max_size=64))
    try:
        message = decode_to_client(frame, version)
    except RunnerProtocolError:
        return
    assert encode_to_client(message, version) == frame


@st.composite
def hostile(draw):
    """A frame that announces much: a head up to some count, a count, and many small items, right or wrong."""
    _, digits = draw(st.sampled_from([of for of in COUNTS.values() if of[0] == "ToServer"]))
    count = draw(st.integers(0, 2**64 - 1) | st.integers(0, 5_000))
    item = draw(st.binary(min_size=1, max_size=16) | st.sampled_from([bytes(1), bytes(2), bytes(15)]))
    return bytes.fromhex(digits) + pack_uint(count) + item * draw(st.integers(0, 2_000))


@settings(max_examples=40)
@given(frame=hostile(), version=st.sampled_from(VERSIONS))
def test_reading_a_frame_takes_memory_by_its_length_whatever_it_announces(frame, version):
    tracemalloc.start()
    try:
        with contextlib.suppress(RunnerProtocolError):
            decode_to_server(frame, version)
        assert tracemalloc.get_traced_memory()[1] < 2**16 + 50 * len(frame)
    finally:
        tracemalloc.stop()
