"""Where a page of a list ends and the next one begins (API §1.4).

Lists by time are ordered by (`created_at`, `id`), so a cursor that names both loses and repeats nothing. To
clients a cursor is opaque, except that a plain number of milliseconds is understood as well.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, Self

from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Collate

from orchestrator.errors import BadRequest
from orchestrator.moments import from_ms, from_us, to_us

MAX_LIMIT = 1_000
"""The longest page; a greater limit is clamped."""

_DECIMAL = re.compile(r"-?[0-9]{1,20}")
_OURS = re.compile(r"(-?[0-9]{1,20})-([0-9a-z]{30})")


class Dated(Protocol):
    """A row of a list ordered by time."""

    created_at: datetime

    @property
    def pk(self) -> Any:
        """Its id."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a list ordered by time; an empty id comes before all others of its moment."""

    at: datetime
    id: str = ""

    @classmethod
    def newest_first(cls, cursor: str) -> Self:
        """Read a cursor of a list that runs from new to old; BadRequest if it is none."""
        return cls._read(cursor, timedelta(0))

    @classmethod
    def oldest_first(cls, cursor: str) -> Self:
        """Read a cursor of a list that runs from old to new; BadRequest if it is none."""
        return cls._read(cursor, timedelta(milliseconds=1))

    @classmethod
    def _read(cls, cursor: str, past: timedelta) -> Self:
        if _DECIMAL.fullmatch(cursor):
            return cls(from_ms(int(cursor)) + past)
        if match := _OURS.fullmatch(cursor):
            return cls(from_us(int(match[1])), match[2])
        raise BadRequest(reason="unreadable cursor")

    @property
    def older(self) -> Q:
        """The condition of rows that come later in a list from new to old."""
        return Q(created_at__lte=self.at) & (Q(created_at__lt=self.at) | Q(pk__lt=self.id))

    @property
    def newer(self) -> Q:
        """The condition of rows that come later in a list from old to new."""
        return Q(created_at__gte=self.at) & (Q(created_at__gt=self.at) | Q(pk__gt=self.id))


def cursor_after(row: Dated) -> str:
    """Return the cursor of the page that follows this row."""
    return f"{to_us(row.created_at)}-{row.pk}"


def bytewise(column: str) -> Collate:
    """Return the text column as an expression that sorts by bytes, whatever the database's own order is."""
    return Collate(F(column), "C" if connection.vendor == "postgresql" else "BINARY")
