"""Shapes that many answers share."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from orchestrator.paging import Dated, cursor_after


class Pagination(BaseModel):
    """Where the next page begins; null when this one is empty."""

    cursor: str | None


class Done(BaseModel):
    """Nothing to say."""


class Refusal(BaseModel):
    """An error: clients go by `group` and `code`; what there is to know is in `metadata`."""

    group: str
    code: str
    message: str
    metadata: dict[str, Any] | None = None


def pagination(rows: Sequence[Dated]) -> dict[str, Any]:
    """Return the pagination of a page of rows ordered by time."""
    return {"cursor": cursor_after(rows[-1]) if rows else None}
