"""Moments as the wire and the API write them: whole milliseconds since the epoch."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = datetime(1, 1, 2, tzinfo=UTC)
_LAST = datetime(9999, 12, 30, tzinfo=UTC)


def to_ms(moment: datetime) -> int:
    """Return whole milliseconds since the epoch, rounded down."""
    return (moment - EPOCH) // timedelta(milliseconds=1)


def to_optional_ms(moment: datetime | None) -> int | None:
    """Return `to_ms` of a moment, None for none."""
    return None if moment is None else to_ms(moment)


def from_ms(ms: int) -> datetime:
    """Return the moment; one that the calendar does not have becomes the nearest it has."""
    return from_us(ms * 1_000)


def from_us(us: int) -> datetime:
    """Return the moment of microseconds since the epoch, within the calendar as in `from_ms`."""
    earliest, latest = to_us(_FIRST), to_us(_LAST)
    return EPOCH + timedelta(microseconds=min(max(us, earliest), latest))


def to_us(moment: datetime) -> int:
    """Return microseconds since the epoch."""
    return (moment - EPOCH) // timedelta(microseconds=1)
