"""Opaque ids: 30 characters `0-9a-z`, ordered by the time they were made.

Ten characters count microseconds since the epoch, twenty are random (about 103 bits). Nobody but
`is_id` may look inside.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"[0-9a-z]{30}")


def _system_clock_us() -> int:
    return time.time_ns() // 1_000


_clock_us: Callable[[], int] = _system_clock_us
_draw: Callable[[int], int] = secrets.randbelow


def new_id() -> str:
    """Return a fresh id; ids made later on one machine sort after earlier ones."""
    return _base36(_clock_us(), 10) + _base36(_draw(36**20), 20)


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


def _base36(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
