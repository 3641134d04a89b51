"""Server-sent events, of bounded size (WHATWG HTML §9.2). Does no I/O."""

import re
from dataclasses import dataclass

MAX_EVENT_BYTES = 64 * 1024
"""The longest line, and the longest event."""

_END_OF_LINE = re.compile(rb"\r\n|\n|\r")


class EventTooLong(Exception):
    """The stream has a line or an event without an end."""


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name and its data."""

    name: str
    data: str


class EventStream:
    """Reads events out of a stream that comes in pieces. Ids and retry times mean nothing here."""

    def __init__(self) -> None:
        self._rest = bytearray()  # of a line
        self._after_cr = False
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Take in a piece and return the events it completes.

        Raises:
            EventTooLong: what has come does not end.
        """
        if self._after_cr and piece[:1] == b"\n":  # the other half of a line's end
            piece, self._after_cr = piece[1:], False
        if not piece:
            return []
        self._after_cr = piece[-1:] == b"\r"
        first, *others = _END_OF_LINE.split(piece)
        self._rest += first
        if len(self._rest) > MAX_EVENT_BYTES:
            raise EventTooLong
        if not others:
            return []
        lines = [bytes(self._rest), *others[:-1]]
        self._rest = bytearray(others[-1])
        return [event for line in lines if (event := self._take(line))]

    def _take(self, line: bytes) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        self._size += len(line) + 1
        if self._size > MAX_EVENT_BYTES:
            raise EventTooLong
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif not name:
            self._size -= len(line) + 1  # a comment is not kept
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = ServerEvent(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data, self._size = "", [], 0
        return event
