"""Transactions that the database breaks off for another's sake are run again.

PostgreSQL does so to one of those in a deadlock, and to whoever cannot be put in order with the others where a
stricter isolation is in force. Nothing of such a transaction is left, and the same one succeeds a moment later.
"""

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from django.db import OperationalError, connection

P = ParamSpec("P")
T = TypeVar("T")

ATTEMPTS = 6
PAUSE_SECONDS = 0.01
"""The longest pause before the second attempt; twice as long before each that follows."""

_BROKEN_OFF = {"40001", "40P01"}  # SQLSTATE serialization_failure and deadlock_detected


def was_broken_off(error: BaseException) -> bool:
    """Say whether the database gave a transaction up for another's sake, and nothing else was wrong."""
    return isinstance(error, OperationalError) and getattr(error.__cause__, "sqlstate", None) in _BROKEN_OFF


def again(function: Callable[P, T]) -> Callable[P, T]:
    """Have a function that is one transaction run again when that was broken off.

    Inside of a transaction the error goes to whoever has begun it: nothing less than the whole helps.
    """

    @wraps(function)
    def attempt(*args: P.args, **kwargs: P.kwargs) -> T:
        for number in range(ATTEMPTS - 1):
            try:
                return function(*args, **kwargs)
            except OperationalError as error:
                if connection.in_atomic_block or not was_broken_off(error):
                    raise
            time.sleep(random.uniform(0, PAUSE_SECONDS * 2**number))
        return function(*args, **kwargs)

    return attempt
