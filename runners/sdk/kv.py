"""The store of an actor, kept by the engine: byte strings under byte strings (PROTOCOL §6)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDropRequest,
    KvErrorResponse,
    KvGetRequest,
    KvGetResponse,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListQuery,
    KvListRangeQuery,
    KvListRequest,
    KvListResponse,
    KvPutRequest,
    KvRequestData,
    KvResponseData,
    ToClientKvResponse,
    ToServerKvRequest,
)
from runners.sdk.errors import KvError, KvTimeout

ANSWER_LIMIT_S = 30.0
NO_ACTOR = "actor does not exist"
"""What the engine answers for an actor that was destroyed (PROTOCOL §6)."""


@dataclass(slots=True)
class _Call:
    """A call whose answer is awaited; `sent` once it was handed to a connection."""

    request: ToServerKvRequest
    answer: asyncio.Future[KvResponseData]
    sent: bool = False


class KvCalls:
    """The calls of all actors of a runner, matched with their answers.

    A call made while there is no connection is sent on the next one. One that was sent and whose connection is
    then lost fails at once: it is never repeated, for nobody knows whether it took effect.
    """

    def __init__(self, send: Callable[[ToServerKvRequest], bool], limit_s: float = ANSWER_LIMIT_S) -> None:
        """`send` hands a request to the connection, or returns False if there is none."""
        self._send = send
        self._limit_s = limit_s
        self._next_id = 0
        self._calls: dict[int, _Call] = {}
        self._refusal: str | None = None

    async def call(self, actor_id: str, data: KvRequestData) -> KvResponseData:
        """Return the engine's answer. Raises KvError, and KvTimeout after the limit."""
        if self._refusal is not None:
            raise KvError(self._refusal)
        request = ToServerKvRequest(actor_id, self._free_id(), data)
        call = _Call(request, asyncio.get_running_loop().create_future())
        self._calls[request.request_id] = call
        call.sent = self._send(request)
        try:
            async with asyncio.timeout(self._limit_s) as limit:
                answer = await call.answer
        except TimeoutError:
            if not limit.expired():
                raise
            raise KvTimeout(f"no answer of the engine within {self._limit_s:g} s") from None
        finally:
            del self._calls[request.request_id]
        if isinstance(answer, KvErrorResponse):
            raise KvError(answer.message)
        return answer

    def answered(self, response: ToClientKvResponse) -> None:
        """Take an answer; one that nobody waits for (any more) is dropped."""
        call = self._calls.get(response.request_id)
        if call is not None and not call.answer.done():
            call.answer.set_result(response.data)

    def connected(self) -> None:
        """Send what was called for meanwhile."""
        for call in self._calls.values():
            if not call.sent:
                call.sent = self._send(call.request)

    def disconnected(self) -> None:
        """Fail the calls that were sent: their answers will not come."""
        for call in self._calls.values():
            if call.sent and not call.answer.done():
                call.answer.set_exception(KvError("the connection was lost before the engine answered"))

    def refuse(self, why: str) -> None:
        """Fail every call, present and future."""
        self._refusal = why
        self.fail(why)

    def fail(self, why: str) -> None:
        """Fail every call that waits."""
        for call in self._calls.values():
            if not call.answer.done():
                call.answer.set_exception(KvError(why))

    def _free_id(self) -> int:
        while self._next_id in self._calls:
            self._next_id = (self._next_id + 1) % 2**32
        free, self._next_id = self._next_id, (self._next_id + 1) % 2**32
        return free


class Calls(Protocol):
    """Carries the calls of an actor to the engine."""

    async def call(self, actor_id: str, data: KvRequestData) -> KvResponseData:
        """Return the engine's answer. Raises KvError."""
        ...


class Kv:
    """The store of one actor. Keys and values are bytes, or text that stands for its UTF-8.

    Every method raises KvError when the engine refuses (limits: PROTOCOL §6.3) and KvTimeout after 30 s.
    """

    def __init__(self, actor_id: str, calls: Calls) -> None:
        self._actor_id = actor_id
        self._calls = calls

    async def get(self, key: bytes | str) -> bytes | None:
        """Return the value, or None if there is none."""
        wanted = _as_bytes(key)
        return (await self.get_many([wanted])).get(wanted)

    async def get_many(self, keys: Sequence[bytes | str]) -> dict[bytes, bytes]:
        """Return the values of the keys that exist; at most 128 keys."""
        answer = await self._calls.call(self._actor_id, KvGetRequest([_as_bytes(key) for key in keys]))
        if not isinstance(answer, KvGetResponse):
            raise _misfit(answer)
        return dict(zip(answer.keys, answer.values, strict=True))

    async def put(self, key: bytes | str, value: bytes | str) -> None:
        """Write one value."""
        await self.put_many({_as_bytes(key): value})

    async def put_many(self, entries: Mapping[bytes, bytes | str] | Mapping[str, bytes | str]) -> None:
        """Write all of them or none; at most 128."""
        keys = [_as_bytes(key) for key in entries]
        await self._calls.call(
            self._actor_id, KvPutRequest(keys, [_as_bytes(value) for value in entries.values()])
        )

    async def delete(self, *keys: bytes | str) -> None:
        """Remove keys, present or not; at most 128."""
        await self._calls.call(self._actor_id, KvDeleteRequest([_as_bytes(key) for key in keys]))

    async def delete_range(self, start: bytes | str, end: bytes | str) -> None:
        """Remove the keys from start up to but without end. Thousands are removed piece by piece."""
        await self._calls.call(self._actor_id, KvDeleteRangeRequest(_as_bytes(start), _as_bytes(end)))

    async def drop(self) -> None:
        """Remove everything. Thousands of keys are removed piece by piece."""
        await self._calls.call(self._actor_id, KvDropRequest())

    async def list(
        self, prefix: bytes | str = b"", *, reverse: bool = False, limit: int | None = None
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return (key, value) of the keys that begin with prefix, bytewise ascending; by default at most 16384.

        What amounts to more than some 30 MiB is refused: ask for it bit by bit, with a limit, and go on with
        `list_range` from the last key and a NUL.
        """
        query = KvListPrefixQuery(_as_bytes(prefix)) if prefix else KvListAllQuery()
        return await self._list(query, reverse, limit)

    async def list_range(
        self, start: bytes | str, end: bytes | str, *, reverse: bool = False, limit: int | None = None
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return, as `list` does, what is from start up to but without end; reversed, the last come first."""
        return await self._list(KvListRangeQuery(_as_bytes(start), _as_bytes(end), exclusive=True), reverse, limit)

    async def _list(self, query: KvListQuery, reverse: bool, limit: int | None) -> Sequence[tuple[bytes, bytes]]:
        answer = await self._calls.call(self._actor_id, KvListRequest(query, reverse, limit))
        if not isinstance(answer, KvListResponse):
            raise _misfit(answer)
        return list(zip(answer.keys, answer.values, strict=True))


def _as_bytes(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else bytes(text)


def _misfit(answer: KvResponseData) -> KvError:
    return KvError(f"the engine answered with a {type(answer).__name__}")
