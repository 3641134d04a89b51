"""Opaque ids: 30 characters `0-9a-z`, ordered by the time they were made.

Ten characters count microseconds since the epoch, twenty are random (about 103 bits). Nobody but
`is_id` may look inside.
"""

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile(r"[0-9a-z]{30}")


def new_id() -> str:
    """Return a fresh id; ids made later on one machine sort after earlier ones."""
    return _base36(time.time_ns() // 1_000, 10) + _base36(secrets.randbelow(36**20), 20)


def is_id(text: str) -> bool:
    """Say whether the text has the shape of an id (lower case only)."""
    return _SHAPE.fullmatch(text) is not None


def _base36(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
