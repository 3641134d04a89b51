"""Events and commands of actors on the wire (PROTOCOL §3.1, §3.4, §4.3, §4.5).

Versions 5 and up say the generation in the checkpoint, version 4 in the body of the event or command. The
values here have it in the checkpoint whatever the version.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from runners.protocol.bare import (
    DATA,
    I64,
    ID,
    TEXT,
    U32,
    Codec,
    absent,
    invalid,
    optional,
    read_text,
    record,
    sequence,
    write_text,
)


class StopCode(IntEnum):
    """How a runner says an actor ended; clients differ in what they mean by it (PROTOCOL pitfall 11)."""

    OK = 0
    ERROR = 1


@dataclass(frozen=True, slots=True)
class ActorCheckpoint:
    """A place in the events or the commands of one generation of an actor.

    Version 4 has no generation here. In events and commands it is taken from the body; in acknowledgements
    there is none: decoding gives 0, for which the caller must put the actor's current generation.
    """

    actor_id: str
    generation: int
    index: int


@dataclass(frozen=True, slots=True)
class ActorIntentSleep:
    """The actor wants to sleep."""


@dataclass(frozen=True, slots=True)
class ActorIntentStop:
    """The actor wants to end."""


@dataclass(frozen=True, slots=True)
class ActorStateRunning:
    """The actor is up."""


@dataclass(frozen=True, slots=True)
class ActorStateStopped:
    """The actor is gone."""

    code: StopCode
    message: str | None


ActorIntent: TypeAlias = ActorIntentSleep | ActorIntentStop
ActorState: TypeAlias = ActorStateRunning | ActorStateStopped


@dataclass(frozen=True, slots=True)
class EventActorIntent:
    """An actor asks for its own end or sleep."""

    intent: ActorIntent


@dataclass(frozen=True, slots=True)
class EventActorStateUpdate:
    """An actor came up or went down."""

    state: ActorState


@dataclass(frozen=True, slots=True)
class EventActorSetAlarm:
    """Replace the actor's alarm, or clear it with None."""

    alarm_ts_ms: int | None


Event: TypeAlias = EventActorIntent | EventActorStateUpdate | EventActorSetAlarm


@dataclass(frozen=True, slots=True)
class EventWrapper:
    """An event and its place."""

    checkpoint: ActorCheckpoint
    inner: Event


@dataclass(frozen=True, slots=True)
class ActorConfig:
    """What an actor is started with; `create_ts_ms` is when the command was made."""

    name: str
    key: str | None
    create_ts_ms: int
    input: bytes | None


@dataclass(frozen=True, slots=True)
class HibernatingRequest:
    """A client's WebSocket that was held open while the actor slept; both ids are 4 bytes."""

    gateway_id: bytes
    request_id: bytes


@dataclass(frozen=True, slots=True)
class CommandStartActor:
    """Start this actor and take these sockets back."""

    config: ActorConfig
    hibernating_requests: Sequence[HibernatingRequest]


@dataclass(frozen=True, slots=True)
class CommandStopActor:
    """Stop the actor the checkpoint names."""


Command: TypeAlias = CommandStartActor | CommandStopActor


@dataclass(frozen=True, slots=True)
class CommandWrapper:
    """A command and its place."""

    checkpoint: ActorCheckpoint
    inner: Command


def checkpoint(version: int) -> Codec[ActorCheckpoint]:
    """Return the codec of a checkpoint that stands alone, as in acknowledgements."""
    return record(ActorCheckpoint, TEXT, U32 if version > 4 else absent(0), I64)


def event(version: int) -> Codec[EventWrapper]:
    """Return the codec of an event and its place."""
    if version > 4:
        return Codec(_read_event_wrapper, _write_event_wrapper, 15)
    return Codec(_read_event_wrapper_v4, _write_event_wrapper_v4, 16)


_GENERATION_INDEX = struct.Struct("<Iq")
_GENERATION_INDEX_TAG = struct.Struct("<IqB")
_INDEX = struct.Struct("<q")
_INDEX_TAG = struct.Struct("<qB")
_GENERATION = struct.Struct("<I")
_OPTIONAL_TEXT = optional(TEXT)

# Events, by hand: every wake and every sleep sends some

_SLEEP_INTENT = EventActorIntent(ActorIntentSleep())
_STOP_INTENT = EventActorIntent(ActorIntentStop())
_RUNNING = EventActorStateUpdate(ActorStateRunning())
_NO_ALARM = EventActorSetAlarm(None)


def _read_event(tag: int, frame: bytes, at: int) -> tuple[Event, int]:
    match tag, frame[at]:
        case 0, 0:
            return _SLEEP_INTENT, at + 1
        case 0, 1:
            return _STOP_INTENT, at + 1
        case 1, 0:
            return _RUNNING, at + 1
        case 1, 1:
            code = frame[at + 1]
            if code > 1:
                raise invalid("unknown StopCode", at + 1)
            message, end = _OPTIONAL_TEXT.read(frame, at + 2)
            return EventActorStateUpdate(ActorStateStopped(StopCode(code), message)), end
        case 2, 0:
            return _NO_ALARM, at + 1
        case 2, 1:
            return EventActorSetAlarm(_INDEX.unpack_from(frame, at + 1)[0]), at + 9
    raise invalid("unknown kind of Event", at)


def _pack_event(event: Event) -> bytes:
    """Return the bytes of an event: its tag, one byte, and the body as of version 5."""
    match event:
        case EventActorIntent(ActorIntentSleep()):
            return b"\x00\x00"
        case EventActorIntent(ActorIntentStop()):
            return b"\x00\x01"
        case EventActorStateUpdate(ActorStateRunning()):
            return b"\x01\x00"
        case EventActorStateUpdate(ActorStateStopped(code, message)):
            out = [b"\x01\x01\x01" if StopCode(code) else b"\x01\x01\x00"]
            _OPTIONAL_TEXT.write(message, out)
            return b"".join(out)
        case EventActorSetAlarm(None):
            return b"\x02\x00"
        case EventActorSetAlarm(alarm_ts_ms):
            return b"\x02\x01" + _INDEX.pack(alarm_ts_ms)
    raise TypeError(f"{type(event).__name__} is no Event")


def _read_event_wrapper(frame: bytes, at: int) -> tuple[EventWrapper, int]:
    actor_id, at = read_text(frame, at)
    generation, index, tag = _GENERATION_INDEX_TAG.unpack_from(frame, at)
    inner, at = _read_event(tag, frame, at + 13)
    return EventWrapper(ActorCheckpoint(actor_id, generation, index), inner), at


def _write_event_wrapper(wrapper: EventWrapper, out: list[bytes]) -> None:
    place = wrapper.checkpoint
    write_text(place.actor_id, out)
    out += (_GENERATION_INDEX.pack(place.generation, place.index), _pack_event(wrapper.inner))


def _read_event_wrapper_v4(frame: bytes, at: int) -> tuple[EventWrapper, int]:
    actor_id, at = read_text(frame, at)
    index, tag = _INDEX_TAG.unpack_from(frame, at)
    start = at + 9
    repeated, at = read_text(frame, start)
    if repeated != actor_id:
        raise invalid("event of another actor than its checkpoint's", start)
    (generation,) = _GENERATION.unpack_from(frame, at)
    inner, at = _read_event(tag, frame, at + 4)
    return EventWrapper(ActorCheckpoint(actor_id, generation, index), inner), at


def _write_event_wrapper_v4(wrapper: EventWrapper, out: list[bytes]) -> None:
    place = wrapper.checkpoint
    packed = _pack_event(wrapper.inner)
    write_text(place.actor_id, out)
    out += (_INDEX.pack(place.index), packed[:1])
    write_text(place.actor_id, out)
    out += (_GENERATION.pack(place.generation), packed[1:])


# Commands

_START = record(
    CommandStartActor,
    record(ActorConfig, TEXT, _OPTIONAL_TEXT, I64, optional(DATA)),
    sequence(record(HibernatingRequest, ID, ID)),
)


def command(version: int) -> Codec[CommandWrapper]:
    """Return the codec of a command and its place."""
    # Version 4 has the generation as the first field of either body, behind the tag.
    shape = struct.Struct("<IqB" if version > 4 else "<qBI")

    def read(frame: bytes, at: int) -> tuple[CommandWrapper, int]:
        actor_id, at = read_text(frame, at)
        if version > 4:
            generation, index, tag = shape.unpack_from(frame, at)
        else:
            index, tag, generation = shape.unpack_from(frame, at)
        place = ActorCheckpoint(actor_id, generation, index)
        at += shape.size
        if tag == 0:
            start, at = _START.read(frame, at)
            return CommandWrapper(place, start), at
        if tag == 1:
            return CommandWrapper(place, CommandStopActor()), at
        raise invalid("unknown tag of Command", at - (1 if version > 4 else 5))

    def write(wrapper: CommandWrapper, out: list[bytes]) -> None:
        place, inner = wrapper.checkpoint, wrapper.inner
        if not isinstance(inner, CommandStartActor | CommandStopActor):
            raise TypeError(f"{type(inner).__name__} is no Command")
        tag = 0 if isinstance(inner, CommandStartActor) else 1
        write_text(place.actor_id, out)
        if version > 4:
            out.append(shape.pack(place.generation, place.index, tag))
        else:
            out.append(shape.pack(place.index, tag, place.generation))
        if isinstance(inner, CommandStartActor):
            _START.write(inner, out)

    return Codec(read, write, 1 + shape.size)
