"""Frames of the runner's socket as messages and back, for each version of the protocol (PROTOCOL §1, §3).

The engine decodes ToServer and encodes ToClient, a runner the other way round. A frame is one message and
nothing else. Whatever is wrong with a frame or with a message, RunnerProtocolError is all that is raised.

A released version never changes: a new one gets its own entry in `VERSIONS`.
"""

import struct
from typing import Any, TypeVar

from runners.errors import RunnerProtocolError
from runners.protocol import actors, kv, tunnel
from runners.protocol.bare import (
    I64,
    MAX_ITEMS,
    TEXT,
    TEXT_MAP,
    U16,
    U32,
    Codec,
    Member,
    absent,
    invalid,
    optional,
    record,
    sequence,
    union,
)
from runners.protocol.messages import (
    MessageId,
    ProtocolMetadata,
    ToClient,
    ToClientAckEvents,
    ToClientCommands,
    ToClientInit,
    ToClientKvResponse,
    ToClientPing,
    ToClientTunnelMessageKind,
    ToServer,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerlessServerInit,
    ToServerPong,
    ToServerStopping,
    ToServerTunnelMessageKind,
)
from runners.protocol.tunnel import TO_CLIENT_KIND, TO_SERVER_KIND

VERSIONS = (4, 5, 6, 7)
"""The versions of the protocol spoken here, which PROTOCOL §3.5 calls mk2."""

MAX_FRAME_BYTES = 32 * 1024 * 1024
"""The longest frame, either way (PROTOCOL §1.2). It is also what a WebSocket server here must let through."""

KV_TAG = b"\x05"
"""First byte of a ToServerKvRequest, in every version (PROTOCOL §3.1)."""

M = TypeVar("M")

_TIME = struct.Struct("<q")
_TUNNEL_HEAD = struct.Struct("<B4s4sH")  # tag, gateway id, request id, index: the same in every version
_TO_CLIENT_TAG = 4
_TO_SERVER_TAG = 6


def _clock(cls: type[Any]) -> Member[Any]:
    """Return the codec of ping or pong, by hand since they come all the time."""

    def read(frame: bytes, at: int) -> tuple[Any, int]:
        return cls(_TIME.unpack_from(frame, at)[0]), at + _TIME.size

    def write(message: Any, out: list[bytes]) -> None:
        out.append(_TIME.pack(message.ts_ms))

    return Member(read, write, _TIME.size, cls)


def _to_server(version: int) -> Codec[ToServer]:
    return union(
        "ToServer",
        record(ToServerInit, TEXT, U32, U32, optional(TEXT_MAP), optional(TEXT)),
        record(ToServerEvents, sequence(actors.event(version), MAX_ITEMS)),
        record(ToServerAckCommands, sequence(actors.checkpoint(version), MAX_ITEMS)),
        record(ToServerStopping),
        _clock(ToServerPong),
        record(ToServerKvRequest, TEXT, U32, kv.request(version)),
        tunnel.TO_SERVER,
    )


def _to_client(version: int) -> Codec[ToClient]:
    later = (I64, optional(I64)) if version >= 6 else (absent(0), absent(None))
    return union(
        "ToClient",
        record(ToClientInit, TEXT, record(ProtocolMetadata, I64, *later)),
        record(ToClientCommands, sequence(actors.command(version))),
        record(ToClientAckEvents, sequence(actors.checkpoint(version))),
        record(ToClientKvResponse, U32, kv.RESPONSE),
        tunnel.TO_CLIENT,
        _clock(ToClientPing),
    )


_TO_SERVER = {version: _to_server(version) for version in VERSIONS}
_TO_CLIENT = {version: _to_client(version) for version in VERSIONS}
_TO_SERVERLESS_SERVER: dict[int, Codec[ToServerlessServerInit]] = dict.fromkeys(
    VERSIONS, union("ToServerlessServer", record(ToServerlessServerInit, TEXT, U16))
)


def decode_to_server(frame: bytes, version: int) -> ToServer:
    """Return the message of a runner. In version 4, mind the generations: see ActorCheckpoint.

    Raises RunnerProtocolError, and of its kinds TunnelPayloadTooLarge for a tunnel message that is too long.
    """
    return _decode(_TO_SERVER.get(version), frame)


def encode_to_server(message: ToServer, version: int) -> bytes:
    """Return the frame for the engine. Raises TunnelPayloadTooLarge for one that would cost the connection."""
    return _encode(_TO_SERVER.get(version), message)


def decode_to_client(frame: bytes, version: int) -> ToClient:
    """Return the message of the engine. In version 4, mind the generations: see ActorCheckpoint."""
    return _decode(_TO_CLIENT.get(version), frame)


def encode_to_client(message: ToClient, version: int) -> bytes:
    """Return the frame for a runner."""
    return _encode(_TO_CLIENT.get(version), message)


def decode_serverless_init(payload: bytes) -> ToServerlessServerInit:
    """Return what an init payload says (PROTOCOL §7.2); it comes as base64, which is already undone here.

    Its first two bytes are the version the rest is encoded in. That `runner_protocol_version` repeats it is
    not demanded.
    """
    version = int.from_bytes(payload[:2], "little")
    return _decode(_TO_SERVERLESS_SERVER.get(version), payload, at=2)


def encode_serverless_init(message: ToServerlessServerInit) -> bytes:
    """Return the init payload of a serverless runner in the version it speaks, without base64."""
    version = message.runner_protocol_version
    encoded = _encode(_TO_SERVERLESS_SERVER.get(version), message)
    return version.to_bytes(2, "little") + encoded


def tunnel_ids(frame: bytes) -> MessageId | None:
    """Return the ids of a runner's frame if it is a tunnel message, without decoding the rest.

    They stand at the same place in every version. None also for a frame that is too short to be one; a frame
    with ids may still turn out undecodable.
    """
    return _tunnel_ids(frame, _TO_SERVER_TAG)


def tunnel_ids_to_client(frame: bytes) -> MessageId | None:
    """Return the ids of an engine's frame if it is a tunnel message: like `tunnel_ids`, the other way."""
    return _tunnel_ids(frame, _TO_CLIENT_TAG)


def encode_tunnel(gateway_id: bytes, request_id: bytes, index: int, kind: ToClientTunnelMessageKind) -> bytes:
    """Return a ToClientTunnelMessage as a frame, the same in every version: `encode_to_client`, but quicker."""
    return _written(TO_CLIENT_KIND, kind, [_TUNNEL_HEAD.pack(_TO_CLIENT_TAG, gateway_id, request_id, index)])


def decode_tunnel_kind(frame: bytes) -> ToServerTunnelMessageKind:
    """Return what a frame says beyond its `tunnel_ids`, which it must have; raises as `decode_to_server`."""
    return _decode(TO_SERVER_KIND, frame, at=_TUNNEL_HEAD.size)


def kv_ids(frame: bytes) -> tuple[str, int] | None:
    """Return actor id and request id of a runner's frame if it is a request for storage, like `tunnel_ids`."""
    if frame[:1] != KV_TAG:
        return None
    try:
        actor_id, at = TEXT.read(frame, 1)
        return actor_id, U32.read(frame, at)[0]
    except (RunnerProtocolError, IndexError, struct.error):
        return None


def _tunnel_ids(frame: bytes, tag: int) -> MessageId | None:
    if len(frame) < 1 + tunnel.TO_CLIENT.least or frame[0] != tag:
        return None
    return tunnel.read_message_id(frame, 1)


def _decode(codec: Codec[M] | None, frame: bytes, at: int = 0) -> M:
    if codec is None:
        raise RunnerProtocolError("unknown protocol version")
    if type(frame) is not bytes:
        raise RunnerProtocolError("frame is not bytes")
    if len(frame) > MAX_FRAME_BYTES:
        raise RunnerProtocolError(f"frame of {len(frame)} bytes, more than {MAX_FRAME_BYTES}")
    try:
        message, end = codec.read(frame, at)
    except (IndexError, struct.error):
        raise invalid("frame ends too early", len(frame)) from None
    if end != len(frame):
        raise invalid("trailing bytes", end)
    return message


def _encode(codec: Codec[M] | None, message: M) -> bytes:
    if codec is None:
        raise RunnerProtocolError("unknown protocol version")
    return _written(codec, message, [])


def _written(codec: Codec[M], message: M, out: list[bytes]) -> bytes:
    try:
        codec.write(message, out)
        frame = b"".join(out)
    except (struct.error, TypeError, ValueError, AttributeError) as error:
        # None of these texts quotes a value, but UnicodeEncodeError holds on to one: hence no cause.
        raise RunnerProtocolError(f"{type(message).__name__} cannot be encoded: {error}") from None
    if len(frame) > MAX_FRAME_BYTES:
        raise RunnerProtocolError(f"frame of {len(frame)} bytes, more than {MAX_FRAME_BYTES}")
    return frame
