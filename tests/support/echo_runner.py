"""A runner whose actors echo what their WebSockets say, and keep books across their lives.

It is as strict as the npm client: what an actor has had already it drops, and a gap is an error. An actor's books
are what a real one would store: each socket's last message. Acknowledgements come late.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from runners.protocol.messages import (
    CommandStartActor,
    CommandStopActor,
    CommandWrapper,
    MessageId,
    ToClient,
    ToClientPing,
    ToClientTunnelMessage,
    ToClientWebSocketClose,
    ToClientWebSocketMessage,
    ToClientWebSocketOpen,
    ToServerPong,
    ToServerTunnelMessage,
    ToServerTunnelMessageKind,
    ToServerWebSocketClose,
    ToServerWebSocketMessage,
    ToServerWebSocketMessageAck,
    ToServerWebSocketOpen,
)
from tests.support.scripted_runner import ScriptedRunner

Ids = tuple[bytes, bytes]


@dataclass(slots=True)
class Book:
    """What an actor knows of one of its sockets."""

    actor_id: str
    name: str  # the path
    last: int = 0  # index of the last message
    acked: int = 0
    sent: int = 0
    awake: bool = True  # the present life has it


class EchoRunner(ScriptedRunner):
    """`opens` and `closes` count, by path, what actors have seen of it; `errors` ought to be empty.

    A socket is closed once: the actor is told, or closes it, or finds at its next start that it is not there.
    After that its close may still come: one whose client had left is listed once, and the life that was so told
    may be over again before its gateway knew of it.
    """

    def __init__(self, url: str, *, can_hibernate: bool = True, ack_every: int = 3, **options: Any) -> None:
        super().__init__(url, **options)
        self.can_hibernate, self.ack_every = can_hibernate, ack_every
        self.books: dict[Ids, Book] = {}
        self.opens: Counter[str] = Counter()
        self.closes: Counter[str] = Counter()
        self._ended: set[Ids] = set()  # by the other side, with a close
        self.listed_in_vain: list[str] = []
        self.errors: list[str] = []

    async def _take_in(self, message: ToClient) -> None:
        if isinstance(message, ToClientTunnelMessage) and not hasattr(message.message_kind, "method"):
            await self._socket_message(message)
        elif isinstance(message, ToClientPing):
            await self.send(ToServerPong(message.ts_ms))
        else:
            await super()._take_in(message)

    async def obey(self, command: CommandWrapper) -> None:
        actor_id = command.checkpoint.actor_id
        if isinstance(command.inner, CommandStartActor):
            await self._restore(actor_id, command.inner)
        elif isinstance(command.inner, CommandStopActor):
            for book in self.books.values():
                if book.actor_id == actor_id:
                    book.awake = False
        await super().obey(command)

    async def _restore(self, actor_id: str, start: CommandStartActor) -> None:
        listed = {(pair.gateway_id, pair.request_id) for pair in start.hibernating_requests}
        for ids, book in list(self.books.items()):
            if book.actor_id != actor_id:
                continue
            if ids in listed:
                book.awake = True
            else:
                self._closed(ids)
        for ids in listed - self.books.keys():
            self.listed_in_vain.append(actor_id)
            await self._say(ids, 0, ToServerWebSocketClose(1000, "ws.meta_not_found_during_restore", False))

    async def _socket_message(self, message: ToClientTunnelMessage) -> None:
        place, kind = message.message_id, message.message_kind
        ids = (place.gateway_id, place.request_id)
        if isinstance(kind, ToClientWebSocketOpen):
            if kind.actor_id in self.lives:
                self.books[ids] = Book(kind.actor_id, kind.path)
                self.opens[kind.path] += 1
                await self._answer(ids, ToServerWebSocketOpen(self.can_hibernate))
            return
        if ids in self._ended:
            self.errors.append(f"{kind} after the end")
        book = self.books.get(ids)
        if book is None or not book.awake:
            return
        if isinstance(kind, ToClientWebSocketMessage):
            await self._message(ids, book, place.message_index, kind)
        elif isinstance(kind, ToClientWebSocketClose):
            self._ended.add(ids)
            self._closed(ids)

    async def _message(self, ids: Ids, book: Book, index: int, message: ToClientWebSocketMessage) -> None:
        ahead = (index - book.last) % 2**16
        if ahead == 0 or ahead >= 2**15:
            return  # it had that one
        if ahead != 1:
            self.errors.append(f"{book.name}: {index} after {book.last}")
        book.last = index
        await self._answer(ids, ToServerWebSocketMessage(message.data, message.binary))
        book.acked += 1
        if self.can_hibernate and book.acked % self.ack_every == 0:
            await self._answer(ids, ToServerWebSocketMessageAck(index))

    async def close_socket(self, ids: Ids, code: int, reason: str) -> None:
        """Have the actor close a socket."""
        if ids in self.books:
            await self._answer(ids, ToServerWebSocketClose(code, reason, hibernate=False))
            self._closed(ids)

    async def _answer(self, ids: Ids, kind: ToServerTunnelMessageKind) -> None:
        book = self.books[ids]
        await self._say(ids, book.sent, kind)
        book.sent = (book.sent + 1) % 2**16

    async def _say(self, ids: Ids, index: int, kind: ToServerTunnelMessageKind) -> None:
        await self.send(ToServerTunnelMessage(MessageId(*ids, index), kind))

    def _closed(self, ids: Ids) -> None:
        self.closes[self.books.pop(ids).name] += 1
