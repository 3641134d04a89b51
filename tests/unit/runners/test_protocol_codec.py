"""Messages of every version, both ways: what is kept, what is moved, what is refused, and how much fits."""

import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given, strategies as st

from runners.errors import RunnerProtocolError, TunnelPayloadTooLarge
from runners.protocol.codec import (
    MAX_FRAME_BYTES,
    VERSIONS,
    decode_serverless_init,
    decode_to_client,
    decode_to_server,
    decode_tunnel_kind,
    encode_serverless_init,
    encode_to_client,
    encode_to_server,
    encode_tunnel,
    kv_ids,
    tunnel_ids,
    tunnel_ids_to_client,
)
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorStateRunning,
    ActorStateStopped,
    CommandStopActor,
    CommandWrapper,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    KvDeleteRangeRequest,
    KvDropRequest,
    KvGetRequest,
    MessageId,
    ProtocolMetadata,
    ToClientAckEvents,
    ToClientCommands,
    ToClientInit,
    ToClientKvResponse,
    ToClientPing,
    ToClientRequestChunk,
    ToClientRequestStart,
    ToClientTunnelMessage,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerlessServerInit,
    ToServerPong,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerStopping,
    ToServerTunnelMessage,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
)
from runners.protocol.tunnel import MAX_PAYLOAD_BYTES
from tests.unit.runners import protocol_strategies as any_

ID = MessageId(b"gate", b"reqs", 7)
PLACE = ActorCheckpoint("act1", 3, 5)
versions = pytest.mark.parametrize("version", VERSIONS)


@versions
@given(data=st.data())
def test_decoding_undoes_encoding_for_the_messages_of_a_runner(version, data):
    message = data.draw(any_.to_server(version))
    assert decode_to_server(encode_to_server(message, version), version) == message


@versions
@given(data=st.data())
def test_decoding_undoes_encoding_for_the_messages_of_the_engine(version, data):
    message = data.draw(any_.to_client(version))
    assert decode_to_client(encode_to_client(message, version), version) == message


@given(runner_id=any_.TEXT, version=st.sampled_from(VERSIONS))
def test_decoding_undoes_encoding_for_a_serverless_init(runner_id, version):
    message = ToServerlessServerInit(runner_id, version)
    assert decode_serverless_init(encode_serverless_init(message)) == message


def test_lists_stand_for_tuples_when_encoding():
    listed = ToServerKvRequest("act1", 0, KvGetRequest([b"a", b"b"]))
    assert decode_to_server(encode_to_server(listed, 7), 7).data == KvGetRequest((b"a", b"b"))


@pytest.mark.parametrize(
    "message",
    [
        ToServerTunnelMessage(ID, ToServerResponseStart(200, {"a": "b"}, b"", False)),
        ToServerTunnelMessage(ID, ToServerWebSocketMessage(b"x", True)),
    ],
)
def test_a_decoded_tunnel_message_is_as_frozen_as_any_other(message):
    decoded = decode_to_server(encode_to_server(message, 7), 7)
    with pytest.raises(FrozenInstanceError):
        decoded.message_kind = None
    with pytest.raises(FrozenInstanceError):
        decoded.message_id.message_index = 0
    with pytest.raises(FrozenInstanceError):
        setattr(decoded.message_kind, fields(decoded.message_kind)[0].name, None)
    assert repr(decoded) == repr(message)


# What an older version cannot say


def test_version_4_acknowledges_without_a_generation():
    commands, events = ToServerAckCommands((PLACE,)), ToClientAckEvents((PLACE,))
    unknown = replace(PLACE, generation=0)
    assert decode_to_server(encode_to_server(commands, 4), 4) == ToServerAckCommands((unknown,))
    assert decode_to_client(encode_to_client(events, 4), 4) == ToClientAckEvents((unknown,))


@pytest.mark.parametrize("version", [4, 5])
def test_before_version_6_only_the_lost_threshold_is_told(version):
    message = ToClientInit("run1", ProtocolMetadata(15000, 30000, 10000))
    told = ToClientInit("run1", ProtocolMetadata(15000, 0, None))
    assert decode_to_client(encode_to_client(message, version), version) == told


@pytest.mark.parametrize("version", [4, 5, 6])
def test_before_version_7_no_range_is_deleted(version):
    message = ToServerKvRequest("act1", 0, KvDeleteRangeRequest(b"a", b"b"))
    with pytest.raises(RunnerProtocolError, match="KvDeleteRangeRequest is no KvRequestData in this version"):
        encode_to_server(message, version)
    with pytest.raises(RunnerProtocolError, match="unknown tag of KvRequestData at byte 10"):
        decode_to_server(bytes.fromhex("050461637431000000000501610162"), version)


def test_version_4_names_the_actor_of_an_event_twice_and_means_the_same():
    event = ToServerEvents((EventWrapper(PLACE, EventActorStateUpdate(ActorStateRunning())),))
    frame = encode_to_server(event, 4)
    assert frame.count(b"act1") == 2
    with pytest.raises(RunnerProtocolError, match="event of another actor than its checkpoint's at byte 16"):
        decode_to_server(frame[::-1].replace(b"1tca", b"2tca", 1)[::-1], 4)


@pytest.mark.parametrize("version", [0, 1, 3, 8, 65535, -1])
def test_another_version_is_refused(version):
    for attempt in (
        lambda: decode_to_server(b"\x03", version),
        lambda: decode_to_client(b"\x03", version),
        lambda: encode_to_server(ToServerStopping(), version),
        lambda: encode_to_client(ToClientPing(0), version),
        lambda: encode_serverless_init(ToServerlessServerInit("run1", version)),
        lambda: decode_serverless_init((version % 65536).to_bytes(2, "little") + b"\x00\x00\x07\x00"),
    ):
        with pytest.raises(RunnerProtocolError, match="unknown protocol version"):
            attempt()


# What no version can say


def to_server_kind(kind, message_id=ID):
    return lambda: encode_to_server(ToServerTunnelMessage(message_id, kind), 7)


def to_client_kind(kind, message_id=ID):
    return lambda: encode_to_client(ToClientTunnelMessage(message_id, kind), 7)


def event(inner, place=PLACE):
    return lambda: encode_to_server(ToServerEvents([EventWrapper(place, inner)]), 7)


ACK = ToServerWebSocketMessageAck(0)
RUNNING = EventActorStateUpdate(ActorStateRunning())
UNSPEAKABLE = {
    "a u16 below 0": to_server_kind(ToServerWebSocketMessageAck(-1)),
    "a u16 over 65535": to_server_kind(ToServerResponseStart(65536, {}, None, False)),
    "a message index over 65535": to_server_kind(ACK, MessageId(b"gate", b"reqs", 65536)),
    "a gateway id of 3 bytes": to_server_kind(ACK, MessageId(b"gat", b"reqs", 0)),
    "a request id of 5 bytes": to_client_kind(ToClientRequestChunk(b"", True), MessageId(b"gate", b"reqst", 0)),
    "a u32 below 0": lambda: encode_to_server(ToServerInit("pool", -1, 1, None, None), 7),
    "a u32 over 2**32 - 1": event(RUNNING, ActorCheckpoint("act1", 2**32, 0)),
    "an i64 over 2**63 - 1": lambda: encode_to_server(ToServerPong(2**63), 7),
    "an i64 below -2**63": event(EventActorSetAlarm(-(2**63) - 1)),
    "a float for a number": lambda: encode_to_client(ToClientPing(0.5), 7),
    "text for a number": lambda: encode_to_client(ToClientPing("0"), 7),
    "None for a number": lambda: encode_to_client(ToClientKvResponse(None, None), 7),
    "bytes for text": lambda: encode_to_server(ToServerInit(b"pool", 1, 1, None, None), 7),
    "bytes for a header": to_server_kind(ToServerResponseStart(200, {"a": b"b"}, None, False)),
    "a number for a path": to_client_kind(ToClientRequestStart("act1", "GET", 1, {}, None, False)),
    "half a surrogate pair": to_server_kind(ToServerResponseStart(200, {"a": "\ud800"}, None, False)),
    "text for a body": to_server_kind(ToServerResponseStart(200, {}, "text", False)),
    "None for data": to_server_kind(ToServerResponseChunk(None, True)),
    "None for a bool": to_server_kind(ToServerResponseChunk(b"", None)),
    "a number for a bool": to_server_kind(ToServerResponseChunk(b"", 1)),
    "pairs for a map": to_server_kind(ToServerResponseStart(200, [("a", "b")], None, False)),
    "one key for many": lambda: encode_to_server(ToServerKvRequest("act1", 0, KvGetRequest(b"key")), 7),
    "a stop code of its own": event(EventActorStateUpdate(ActorStateStopped(2, None))),
    "an event of its own": event(ActorStateRunning()),
    "an event whose state is an intent": event(EventActorStateUpdate(None)),
    "a command of its own": lambda: encode_to_client(ToClientCommands([CommandWrapper(PLACE, None)]), 7),
    "a stop of no actor": lambda: encode_to_client(ToClientCommands([CommandStopActor()]), 7),
    "the engine's message from a runner": lambda: encode_to_server(ToClientPing(0), 7),
    "a runner's message from the engine": lambda: encode_to_client(ToServerPong(0), 7),
    "a runner's tunnel message from the engine": to_client_kind(ACK),
    "nothing": lambda: encode_to_client(None, 7),
}


@pytest.mark.parametrize("encode", UNSPEAKABLE.values(), ids=UNSPEAKABLE)
def test_a_value_without_a_place_on_the_wire_is_refused(encode):
    with pytest.raises(RunnerProtocolError):
        encode()


# How much fits


@pytest.mark.parametrize(
    "kind",
    [
        lambda data: ToServerResponseStart(200, {}, data, False),
        lambda data: ToServerResponseChunk(data, True),
        lambda data: ToServerWebSocketMessage(data, True),
    ],
)
def test_a_runner_may_send_20_mib_in_a_tunnel_message_and_no_more(kind):
    most = ToServerTunnelMessage(ID, kind(bytes(MAX_PAYLOAD_BYTES)))
    frame = encode_to_server(most, 7)
    assert decode_to_server(frame, 7) == most
    with pytest.raises(TunnelPayloadTooLarge):
        encode_to_server(ToServerTunnelMessage(ID, kind(bytes(MAX_PAYLOAD_BYTES + 1))), 7)
    size = frame.index(bytes.fromhex("8080800a"))  # 20 MiB as a uint; one more byte, and its size
    with pytest.raises(TunnelPayloadTooLarge):
        decode_to_server(frame[:size] + bytes.fromhex("8180800a") + b"\x00" + frame[size + 4 :], 7)


def test_the_engine_is_bound_by_the_frame_alone():
    overhead = (
        len(encode_to_client(ToClientTunnelMessage(ID, ToClientRequestChunk(bytes(2**24), True)), 7)) - 2**24
    )
    most = ToClientTunnelMessage(ID, ToClientRequestChunk(bytes(MAX_FRAME_BYTES - overhead), True))
    frame = encode_to_client(most, 7)
    assert len(frame) == MAX_FRAME_BYTES
    assert decode_to_client(frame, 7) == most
    more = ToClientTunnelMessage(ID, ToClientRequestChunk(bytes(MAX_FRAME_BYTES - overhead + 1), True))
    with pytest.raises(RunnerProtocolError, match="frame of 33554433 bytes, more than 33554432"):
        encode_to_client(more, 7)
    with pytest.raises(RunnerProtocolError, match="frame of 33554433 bytes, more than 33554432"):
        decode_to_client(frame + b"\x00", 7)


# The ids alone


@versions
@given(message_id=any_.MESSAGE_ID, kind=any_.TO_SERVER_KIND)
def test_the_ids_of_a_runners_tunnel_message_are_read_without_the_rest(version, message_id, kind):
    frame = encode_to_server(ToServerTunnelMessage(message_id, kind), version)
    assert tunnel_ids(frame) == message_id
    assert tunnel_ids(frame[:12] + b"\xff anything") == message_id


@versions
@given(message_id=any_.MESSAGE_ID, kind=any_.TO_CLIENT_KIND)
def test_the_ids_of_an_engines_tunnel_message_are_read_without_the_rest(version, message_id, kind):
    frame = encode_to_client(ToClientTunnelMessage(message_id, kind), version)
    assert tunnel_ids_to_client(frame) == message_id


@versions
@given(message_id=any_.MESSAGE_ID, to_client=any_.TO_CLIENT_KIND, to_server=any_.TO_SERVER_KIND)
def test_the_shorter_ways_lead_to_the_same(version, message_id, to_client, to_server):
    ids = (message_id.gateway_id, message_id.request_id, message_id.message_index)
    assert encode_tunnel(*ids, to_client) == encode_to_client(
        ToClientTunnelMessage(message_id, to_client), version
    )
    frame = encode_to_server(ToServerTunnelMessage(message_id, to_server), version)
    assert decode_tunnel_kind(frame) == to_server
    with pytest.raises(RunnerProtocolError):
        decode_tunnel_kind(frame + b"x")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\x06",
        encode_to_server(ToServerTunnelMessage(ID, ACK), 7)[:11],
        encode_to_server(ToServerPong(1), 7),
        b"\x04" + bytes(20),  # a pong with bytes behind it begins like the engine's tunnel messages
        encode_to_server(ToServerInit("a long name of a pool", 1, 1, None, None), 7),
    ],
)
def test_other_frames_of_a_runner_have_no_ids(frame):
    assert tunnel_ids(frame) is None


@pytest.mark.parametrize("frame", [b"", b"\x04" + bytes(10), b"\x06" + bytes(20), b"\x05" + bytes(8)])
def test_other_frames_of_the_engine_have_no_ids(frame):
    assert tunnel_ids_to_client(frame) is None


def test_the_codec_does_without_django():
    check = "import sys, runners.protocol.codec, runners.errors; sys.exit('django' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=30)


@versions
@pytest.mark.parametrize("actor_id", ["", "act1", "é" * 100])
def test_whose_storage_a_request_is_for_is_read_without_decoding_the_rest(version, actor_id):
    frame = encode_to_server(ToServerKvRequest(actor_id, 7, KvDropRequest()), version)
    assert kv_ids(frame) == (actor_id, 7)
    assert kv_ids(frame[:-1] + b"\xff anything") == (actor_id, 7)


@pytest.mark.parametrize(
    "frame", [b"", b"\x05", b"\x05\x04act", b"\x05\x01a\0\0\0", b"\x05\x01\xff\0\0\0\0", b"\x04\x01a\0\0\0\0"]
)
def test_a_frame_that_is_no_request_for_storage_has_no_such_ids(frame):
    assert kv_ids(frame) is None
