"""Opaque ids: 30 characters `0-9a-z`, ordered by the time they were made.

Ten characters count microseconds since the epoch, twenty are random (about 103 bits). Nobody but
`is_id` may look inside.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from orchestrator import clock

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
_TEN = 36**10
_SHAPE = re.compile(r"[0-9a-z]{30}")


def _system_clock_us() -> int:
    return int(clock.seconds() * 1_000_000)


def _system_draw(below: int) -> int:
    return int.from_bytes(os.urandom(20)) % below  # so many more bits than needed that none is preferred


_clock_us: Callable[[], int] = _system_clock_us
_draw: Callable[[int], int] = _system_draw


def new_id() -> str:
    """Return a fresh id; ids made later on one machine sort after earlier ones."""
    high, low = divmod(_draw(_TEN * _TEN), _TEN)
    return _ten(_clock_us()) + _ten(high) + _ten(low)


@contextmanager
def drawn_from(clock_us: Callable[[], int], draw: Callable[[int], int]) -> Iterator[None]:
    """Make ids from another clock (microseconds) and another source of numbers below n, for a simulation."""
    global _clock_us, _draw
    before = _clock_us, _draw
    _clock_us, _draw = clock_us, draw
    try:
        yield
    finally:
        _clock_us, _draw = before


def is_id(text: str) -> bool:
    """Say whether the text has the shape of an id (lower case only)."""
    return _SHAPE.fullmatch(text) is not None


def _ten(number: int) -> str:
    """Return the last ten digits, two at a time: every request gets an id."""
    pairs = _PAIRS
    number, fifth = divmod(number, 1296)
    number, fourth = divmod(number, 1296)
    number, third = divmod(number, 1296)
    first, second = divmod(number, 1296)
    return pairs[first % 1296] + pairs[second] + pairs[third] + pairs[fourth] + pairs[fifth]
