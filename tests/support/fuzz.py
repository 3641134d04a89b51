"""Frames as no runner should send them: seeded, random ones and valid ones that were damaged."""

import random
from collections.abc import Iterator, Sequence

from runners.protocol.codec import encode_to_server
from runners.protocol.messages import (
    ActorCheckpoint,
    ActorIntentSleep,
    ActorIntentStop,
    ActorStateRunning,
    ActorStateStopped,
    EventActorIntent,
    EventActorSetAlarm,
    EventActorStateUpdate,
    EventWrapper,
    KvDeleteRequest,
    KvDropRequest,
    KvGetRequest,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListRangeQuery,
    KvListRequest,
    KvPutRequest,
    MessageId,
    StopCode,
    ToServer,
    ToServerAckCommands,
    ToServerEvents,
    ToServerInit,
    ToServerKvRequest,
    ToServerPong,
    ToServerResponseAbort,
    ToServerResponseChunk,
    ToServerResponseStart,
    ToServerStopping,
    ToServerTunnelMessage,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)

_BYTES = (b"", b"\x00", b"\x01", b"\x7f", b"\x80", b"\xff", b"\xff" * 9 + b"\x01", b"\x80\x80\x01")
_NUMBERS = (0, 1, 2**16 - 1, 2**31, 2**32 - 1)
_TEXTS = ("", "\0", "a", "ä" * 40, "x" * 130)


class Fuzzer:
    """Makes frames of one version that speak of these actors and gateways, if they speak of anything."""

    def __init__(self, seed: int, version: int, actor_ids: Sequence[str], gateway_ids: Sequence[bytes]) -> None:
        self._random = random.Random(f"{seed}/{version}")
        self._version = version
        self._actors = [*actor_ids, *_TEXTS]
        self._gateways = [*gateway_ids, b"none"]

    def frames(self, count: int) -> Iterator[bytes | str]:
        """Give so many frames; a few are text."""
        for _ in range(count):
            kind = self._random.random()
            if kind < 0.01:
                yield self._random.choice(["", "text", "\0" * 100])
            elif kind < 0.15:
                yield self._random.randbytes(self._random.randrange(80))
            else:
                yield self._damaged(encode_to_server(self._message(), self._version))

    def _damaged(self, frame: bytes) -> bytes:
        """Return the frame with up to three places changed, cut, doubled or put in; one in four is left valid."""
        damaged = bytearray(frame)
        for _ in range(self._random.randrange(4)):
            start = self._random.randrange(len(damaged) + 1)
            end = min(len(damaged), start + self._random.randrange(5))
            piece = self._random.choice([*_BYTES, bytes(damaged[start:end]) * 2, self._random.randbytes(4)])
            damaged[start:end] = piece
        return bytes(damaged)

    def _message(self) -> ToServer:
        pick = self._random.choice
        place = MessageId(pick(self._gateways), self._random.randbytes(4), self._random.randrange(2**16))
        text, data, number = pick(_TEXTS), self._random.randbytes(self._random.randrange(200)), pick(_NUMBERS)
        kinds = [
            ToServerResponseStart(
                number % 2**16, {text: text, "a": "b"}, pick([None, data]), stream=pick([True, False])
            ),
            ToServerResponseChunk(data, finish=pick([True, False])),
            ToServerResponseAbort(),
            ToServerWebSocketOpen(can_hibernate=pick([True, False])),
            ToServerWebSocketMessage(data, binary=pick([True, False])),
            ToServerWebSocketMessageAck(number % 2**16),
            ToServerWebSocketClose(
                pick([None, number % 2**16]), pick([None, text]), hibernate=pick([True, False])
            ),
        ]
        stored = [
            KvGetRequest((data, b"")),
            KvListRequest(
                pick([KvListAllQuery(), KvListPrefixQuery(data), KvListRangeQuery(b"", data, exclusive=True)]),
                None,
                number,
            ),
            KvPutRequest((data,), (data, data)),
            KvDeleteRequest((data,)),
            KvDropRequest(),
        ]
        messages: list[ToServer] = [
            ToServerInit(text, number, number, {text: text}, pick([None, "{}"])),
            ToServerEvents(tuple(self._event() for _ in range(self._random.randrange(6)))),
            ToServerEvents((self._event(),)),
            ToServerAckCommands(tuple(self._checkpoint() for _ in range(self._random.randrange(4)))),
            ToServerPong(pick([0, -(2**63), 2**63 - 1])),
            ToServerKvRequest(pick(self._actors), number, pick(stored)),
            ToServerTunnelMessage(place, pick(kinds)),
            ToServerTunnelMessage(place, pick(kinds)),
        ]
        return ToServerStopping() if self._random.random() < 0.001 else pick(messages)

    def _event(self) -> EventWrapper:
        pick = self._random.choice
        inner = pick(
            [
                EventActorIntent(ActorIntentSleep()),
                EventActorIntent(ActorIntentStop()),
                EventActorStateUpdate(ActorStateRunning()),
                EventActorStateUpdate(ActorStateStopped(pick(list(StopCode)), pick([None, *_TEXTS]))),
                EventActorSetAlarm(pick([None, 0, -(2**63), 2**63 - 1])),
            ]
        )
        return EventWrapper(self._checkpoint(), inner)

    def _checkpoint(self) -> ActorCheckpoint:
        index = self._random.choice([0, 1, -1, 250, -(2**63), 2**63 - 1])
        generation = 0 if self._version == 4 else self._random.choice(_NUMBERS)
        return ActorCheckpoint(self._random.choice(self._actors), generation, index)
