"""What other processes send to the one that holds a runner's socket, and what it sends to a gateway.

Bus channels: `runner:{runner id}` to the socket, `gateway:{gateway id as hex}` to a gateway process,
`actor:{actor id}` to whoever waits for or talks to an actor. Tunnel frames travel as the bytes of the wire
(PROTOCOL §3; the same in every version), so nobody on the way decodes them.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_SEQ = struct.Struct("<cQ")
_FRAMES = struct.Struct("<c4sIQ")
_LENGTH = struct.Struct("<I")
_LIFE = struct.Struct("<30sI")
_FROM_RUNNER = struct.Struct("<30s4sQ")
UNNUMBERED = bytes(4)
"""In the place of a socket's nonce: what comes with it has no number."""

Life = tuple[str, int]
"""An actor's id and a generation of it."""
ANY_LIFE: Life = ("", 0)
"""For a frame that is good for whichever life it finds."""


def runner_channel(runner_id: str) -> str:
    """Return the channel of a runner's socket."""
    return f"runner:{runner_id}"


def gateway_channel(gateway_id: bytes) -> str:
    """Return the channel of a gateway process."""
    return f"gateway:{gateway_id.hex()}"


def returned_news(runner_id: str, seconds: float, *, untold: bool) -> bytes:
    """Return the message to an actor's gateways that its runner has had another connection for so long.

    `untold`: nobody has told them what the one before may have lost.
    """
    news = {"m": "returned", "runner": runner_id, "seconds": round(seconds, 3), "untold": untold}
    return json.dumps(news).encode()


def actor_channel(actor_id: str) -> str:
    """Return the channel of an actor's messages."""
    return f"actor:{actor_id}"


@dataclass(frozen=True, slots=True)
class TunnelFrame:
    """A ToClientTunnelMessage, encoded."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Frames:
    """ToClientTunnelMessages of a gateway's WebSockets. `number` counts from 0 in each epoch of the gateway.

    `lives`: the life each frame is for; None to a socket that has not said that it reads that.
    """

    gateway_id: bytes
    epoch: int
    number: int
    frames: tuple[bytes, ...]
    lives: tuple[Life, ...] | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """A gateway asks how far the socket has come with it."""

    gateway_id: bytes


@dataclass(frozen=True, slots=True)
class FromRunner:
    """A ToServerTunnelMessage of a runner, encoded, or a notice of its socket (`links.py`), for a gateway.

    `number` counts what this socket, known by its `nonce`, has sent to this gateway; a notice takes none, but says
    what the next one will be.
    """

    runner_id: str
    frame: bytes
    nonce: bytes = UNNUMBERED
    number: int = 0


@dataclass(frozen=True, slots=True)
class LogEntry:
    """A command that was committed: its place in the runner's log, and a ToClientCommands of version 7."""

    seq: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Processed:
    """Events (actor id, generation, index, over) that were committed; over: the runner has that life no more."""

    events: tuple[tuple[str, int, int, bool], ...]


@dataclass(frozen=True, slots=True)
class Evict:
    """Close the socket with `ws.eviction`, unless it is the one to keep, or has itself taken that one's place."""

    keep_socket_id: str = ""


ToSocket = TunnelFrame | Frames | Probe | LogEntry | Processed | Evict


def encode(message: ToSocket) -> bytes:
    """Return the message as bytes: a kind, then its content."""
    match message:
        case TunnelFrame(frame):
            return b"T" + frame
        case Frames(gateway_id, epoch, number, frames, None):
            parts = [part for one in frames for part in (_LENGTH.pack(len(one)), one)]
            return _FRAMES.pack(b"S", gateway_id, epoch, number) + b"".join(parts)
        case Frames(gateway_id, epoch, number, frames, lives):
            parts = [
                part
                for one, life in zip(frames, lives or (), strict=True)
                for part in (_LENGTH.pack(len(one) + _LIFE.size), _encode_life(life), one)
            ]
            return _FRAMES.pack(b"L", gateway_id, epoch, number) + b"".join(parts)
        case Probe(gateway_id):
            return b"P" + gateway_id
        case LogEntry(seq, frame):
            return _SEQ.pack(b"C", seq) + frame
        case Processed(events):
            return b"A" + json.dumps(events, separators=(",", ":")).encode()
        case Evict(keep):
            return b"E" + keep.encode()


def decode(payload: bytes) -> ToSocket | None:
    """Return the message of bytes made by `encode`, None for one of a kind that this release does not have.

    Raises:
        ValueError: it is of a known kind and means nothing.
    """
    kind = payload[:1]
    if kind == b"T":
        return TunnelFrame(payload[1:])
    try:
        if kind == b"S":
            _, gateway_id, epoch, number = _FRAMES.unpack_from(payload)
            return Frames(gateway_id, epoch, number, tuple(_split(payload, _FRAMES.size)))
        if kind == b"L":
            _, gateway_id, epoch, number = _FRAMES.unpack_from(payload)
            parts = list(_split(payload, _FRAMES.size))
            lives = tuple(_decode_life(part) for part in parts)
            return Frames(gateway_id, epoch, number, tuple(part[_LIFE.size :] for part in parts), lives)
        if kind == b"P":
            return Probe(payload[1:])
        if kind == b"C":
            return LogEntry(_SEQ.unpack_from(payload)[1], payload[_SEQ.size :])
        if kind == b"A":
            events: list[Any] = json.loads(payload[1:])
            return Processed(tuple((a, g, i, ended) for a, g, i, ended, *_ in events))
        if kind == b"E":
            return Evict(payload[1:].decode())
    except (struct.error, TypeError) as error:
        raise ValueError(str(error)) from error
    return None


def _encode_life(life: Life) -> bytes:
    return _LIFE.pack(life[0].encode(), life[1])


def _decode_life(part: bytes) -> Life:
    actor_id, generation = _LIFE.unpack_from(part)
    return actor_id.rstrip(b"\0").decode(), generation


_UNPROVEN = b"U"  # no tag of a frame


def encode_unproven(request_id: bytes, *, is_back: bool) -> bytes:
    """Return, in place of a runner's frame, the word that a request may not have reached the runner.

    `is_back`: the runner is connected again already.
    """
    return _UNPROVEN + request_id + (b"\1" if is_back else b"\0")


def decode_unproven(frame: bytes) -> tuple[bytes, bool] | None:
    """Return request id and whether the runner is back; None if these are not the bytes of `encode_unproven`."""
    return (frame[1:5], frame[5:] == b"\1") if frame[:1] == _UNPROVEN and len(frame) == 6 else None


def _split(payload: bytes, at: int) -> Iterator[bytes]:
    while at < len(payload):
        (length,) = _LENGTH.unpack_from(payload, at)
        at += _LENGTH.size + length
        yield payload[at - length : at]


def encode_from_runner(message: FromRunner) -> bytes:
    """Return the message as bytes: runner id, nonce, number, then the frame."""
    return _FROM_RUNNER.pack(message.runner_id.encode(), message.nonce, message.number) + message.frame


def decode_from_runner(payload: bytes) -> FromRunner:
    """Return the message of bytes made by `encode_from_runner`."""
    runner_id, nonce, number = _FROM_RUNNER.unpack_from(payload)
    return FromRunner(runner_id.decode(), payload[_FROM_RUNNER.size :], nonce, number)
