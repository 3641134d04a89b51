"""Clients' requests and WebSockets inside the runner's socket (PROTOCOL §3.1, §5), the same in all versions.

This is what most traffic is, so what comes once per request or message is read and written by hand.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, make_dataclass
from operator import attrgetter
from typing import Any, TypeAlias, cast

from runners.errors import TunnelPayloadTooLarge
from runners.protocol.bare import (
    BOOL,
    DATA,
    TEXT,
    TEXT_MAP,
    U16,
    Codec,
    D,
    Member,
    optional,
    read_bool,
    read_data,
    read_text,
    read_text_map,
    record,
    union,
    write_bool,
    write_data,
    write_id,
    write_text_map,
    write_texts,
)

MAX_PAYLOAD_BYTES = 20 * 1024 * 1024
"""What one tunnel message of a runner may carry as its body or data (PROTOCOL §5.5, §9)."""


@dataclass(frozen=True, slots=True)
class MessageId:
    """Which request or WebSocket of which gateway (4 opaque bytes each), and which message of it (u16)."""

    gateway_id: bytes
    request_id: bytes
    message_index: int


@dataclass(frozen=True, slots=True)
class ToClientRequestStart:
    """An HTTP request for an actor."""

    actor_id: str
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    stream: bool


@dataclass(frozen=True, slots=True)
class ToClientRequestChunk:
    """A further part of a request's body."""

    body: bytes
    finish: bool


@dataclass(frozen=True, slots=True)
class ToClientRequestAbort:
    """The client went away."""


@dataclass(frozen=True, slots=True)
class ToClientWebSocketOpen:
    """A client opens a WebSocket to an actor."""

    actor_id: str
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ToClientWebSocketMessage:
    """A message of a client; UTF-8 unless `binary`."""

    data: bytes
    binary: bool


@dataclass(frozen=True, slots=True)
class ToClientWebSocketClose:
    """A client's WebSocket is closed."""

    code: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ToServerResponseStart:
    """The answer of an actor, all of it unless `stream`."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    stream: bool


@dataclass(frozen=True, slots=True)
class ToServerResponseChunk:
    """A further part of an answer's body."""

    body: bytes
    finish: bool


@dataclass(frozen=True, slots=True)
class ToServerResponseAbort:
    """There will be no (more) answer."""


@dataclass(frozen=True, slots=True)
class ToServerWebSocketOpen:
    """The actor accepts the WebSocket, and says whether it may hibernate."""

    can_hibernate: bool


@dataclass(frozen=True, slots=True)
class ToServerWebSocketMessage:
    """A message of an actor; UTF-8 unless `binary`."""

    data: bytes
    binary: bool


@dataclass(frozen=True, slots=True)
class ToServerWebSocketMessageAck:
    """The actor has kept the client's messages up to and including this index."""

    index: int


@dataclass(frozen=True, slots=True)
class ToServerWebSocketClose:
    """The actor closes the WebSocket, or with `hibernate` lets go of it while it sleeps."""

    code: int | None
    reason: str | None
    hibernate: bool


ToClientTunnelMessageKind: TypeAlias = (
    ToClientRequestStart
    | ToClientRequestChunk
    | ToClientRequestAbort
    | ToClientWebSocketOpen
    | ToClientWebSocketMessage
    | ToClientWebSocketClose
)
ToServerTunnelMessageKind: TypeAlias = (
    ToServerResponseStart
    | ToServerResponseChunk
    | ToServerResponseAbort
    | ToServerWebSocketOpen
    | ToServerWebSocketMessage
    | ToServerWebSocketMessageAck
    | ToServerWebSocketClose
)


@dataclass(frozen=True, slots=True)
class ToClientTunnelMessage:
    """A tunnel message on its way to an actor."""

    message_id: MessageId
    message_kind: ToClientTunnelMessageKind


@dataclass(frozen=True, slots=True)
class ToServerTunnelMessage:
    """A tunnel message on its way to a gateway."""

    message_id: MessageId
    message_kind: ToServerTunnelMessageKind


_MESSAGE_ID = struct.Struct("<4s4sH")
_U16 = struct.Struct("<H")
_BODY = optional(DATA)


def _draft(cls: type[D]) -> Callable[..., Any]:
    """Return a constructor of what has the slots of a frozen dataclass but is not frozen yet.

    Its `__class__` is then set to `cls`. That takes half the time of the constructor of a frozen dataclass,
    which goes through `object.__setattr__` for each field: a quarter of decoding a response.
    """
    return make_dataclass(cls.__name__, [field.name for field in fields(cls)], slots=True)


_draft_message_id = _draft(MessageId)
_draft_request_start = _draft(ToClientRequestStart)
_draft_response_start = _draft(ToServerResponseStart)


def read_message_id(frame: bytes, at: int) -> MessageId:
    """Read the ids and the index a tunnel message begins with, 10 bytes."""
    message_id = _draft_message_id(*_MESSAGE_ID.unpack_from(frame, at))
    message_id.__class__ = MessageId
    return cast(MessageId, message_id)


def _write_message_id(message_id: MessageId, out: list[bytes]) -> None:
    write_id(message_id.gateway_id, out)
    write_id(message_id.request_id, out)
    out.append(_U16.pack(message_id.message_index))


def _check(payload: bytes) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise TunnelPayloadTooLarge(f"tunnel payload of {len(payload)} bytes, more than {MAX_PAYLOAD_BYTES}")


def _read_request_start(frame: bytes, at: int) -> tuple[ToClientRequestStart, int]:
    actor_id, at = read_text(frame, at)
    method, at = read_text(frame, at)
    path, at = read_text(frame, at)
    headers, at = read_text_map(frame, at)
    body, at = _BODY.read(frame, at)
    stream, at = read_bool(frame, at)
    start = _draft_request_start(actor_id, method, path, headers, body, stream)
    start.__class__ = ToClientRequestStart
    return start, at


def _write_request_start(start: ToClientRequestStart, out: list[bytes]) -> None:
    write_texts((start.actor_id, start.method, start.path), start.headers, out)
    _BODY.write(start.body, out)
    write_bool(start.stream, out)


def _read_response_start(frame: bytes, at: int) -> tuple[ToServerResponseStart, int]:
    (status,) = _U16.unpack_from(frame, at)
    headers, at = read_text_map(frame, at + 2)
    body, at = _BODY.read(frame, at)
    if body is not None:
        _check(body)
    stream, at = read_bool(frame, at)
    start = _draft_response_start(status, headers, body, stream)
    start.__class__ = ToServerResponseStart
    return start, at


def _write_response_start(start: ToServerResponseStart, out: list[bytes]) -> None:
    if start.body is not None:
        _check(start.body)
    out.append(_U16.pack(start.status))
    write_text_map(start.headers, out)
    _BODY.write(start.body, out)
    write_bool(start.stream, out)


def _read_ack(frame: bytes, at: int) -> tuple[ToServerWebSocketMessageAck, int]:
    return ToServerWebSocketMessageAck(_U16.unpack_from(frame, at)[0]), at + 2


def _write_ack(ack: ToServerWebSocketMessageAck, out: list[bytes]) -> None:
    out.append(_U16.pack(ack.index))


def _payload(cls: type[D], data_name: str, flag_name: str, limited: bool = False) -> Member[D]:
    """Return the codec of a message of data and a flag, with or without the limit on a runner's payload."""
    draft = _draft(cls)
    get = attrgetter(data_name, flag_name)

    def read(frame: bytes, at: int) -> tuple[D, int]:
        data, at = read_data(frame, at)
        if limited:
            _check(data)
        flag, at = read_bool(frame, at)
        message = draft(data, flag)
        message.__class__ = cls
        return message, at

    def write(message: D, out: list[bytes]) -> None:
        data, flag = get(message)
        if limited:
            _check(data)
        write_data(data, out)
        write_bool(flag, out)

    return Member(read, write, 2, cls)


def _message(cls: type[Any], kinds: Codec[Any]) -> Member[Any]:
    """Return the codec of a tunnel message of one of these kinds."""
    read_kind = kinds.read
    draft = _draft(cls)

    def read(frame: bytes, at: int) -> tuple[Any, int]:
        kind, end = read_kind(frame, at + _MESSAGE_ID.size)
        message = draft(read_message_id(frame, at), kind)
        message.__class__ = cls
        return message, end

    def write(message: Any, out: list[bytes]) -> None:
        _write_message_id(message.message_id, out)
        kinds.write(message.message_kind, out)

    return Member(read, write, _MESSAGE_ID.size + kinds.least, cls)


TO_CLIENT_KIND: Codec[ToClientTunnelMessageKind] = union(
    "ToClientTunnelMessageKind",
    Member(_read_request_start, _write_request_start, 6, ToClientRequestStart),
    _payload(ToClientRequestChunk, "body", "finish"),
    record(ToClientRequestAbort),
    record(ToClientWebSocketOpen, TEXT, TEXT, TEXT_MAP),
    _payload(ToClientWebSocketMessage, "data", "binary"),
    record(ToClientWebSocketClose, optional(U16), optional(TEXT)),
)
TO_SERVER_KIND: Codec[ToServerTunnelMessageKind] = union(
    "ToServerTunnelMessageKind",
    Member(_read_response_start, _write_response_start, 5, ToServerResponseStart),
    _payload(ToServerResponseChunk, "body", "finish", limited=True),
    record(ToServerResponseAbort),
    record(ToServerWebSocketOpen, BOOL),
    _payload(ToServerWebSocketMessage, "data", "binary", limited=True),
    Member(_read_ack, _write_ack, 2, ToServerWebSocketMessageAck),
    record(ToServerWebSocketClose, optional(U16), optional(TEXT), BOOL),
)
TO_CLIENT = _message(ToClientTunnelMessage, TO_CLIENT_KIND)
TO_SERVER = _message(ToServerTunnelMessage, TO_SERVER_KIND)
