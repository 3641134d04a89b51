"""Whose token it is, from memory, for what cannot wait for the database: the gateway and the runners' sockets.

What is remembered is forgotten when a token is made or revoked, after `FRESH_SECONDS`, and when the link to the
other processes was lost. While the database is away an answer is good for a little longer.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

from django.conf import settings
from django.db import DatabaseError

from orchestrator import access, tokens
from orchestrator.access import Bearer, Right
from orchestrator.bus import get_bus
from orchestrator.db import run_db
from orchestrator.errors import BusUnavailable, Forbidden

logger = logging.getLogger(__name__)

FRESH_SECONDS = 10.0
STALE_SECONDS = 60.0
CAPACITY = 10_000
"""Tokens, wrong ones too, that are remembered."""


async def authorise(right: Right, namespace: str | None, token: str | None) -> Bearer:
    """Return who it is that has the right in the namespace of this name; None: in any of theirs.

    Raises:
        Forbidden: no token is given (None), or one that does not give the right.
    """
    if not settings.ENV.auth_required:
        return access.ADMIN
    if token is None:
        raise Forbidden(reason="Token not provided")
    if tokens.is_admin(token):
        return access.ADMIN
    return access.check(await _doorkeeper().whose(token), right, namespace)


@dataclass(slots=True)
class _Known:
    bearer: Bearer | None
    since: float  # by the monotonic clock


class Doorkeeper:
    """What the processes of one event loop remember of tokens."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._asked: dict[bytes, asyncio.Task[Bearer | None]] = {}
        self._times_forgotten = 0
        self._listening: asyncio.Task[None] | None = None

    async def whose(self, token: str) -> Bearer | None:
        """Return whose token it is, None if nobody's."""
        key = sha256(token.encode()).digest()
        known = self._known.get(key)
        if known is not None and time.monotonic() - known.since < FRESH_SECONDS:
            return known.bearer
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        if key not in self._asked:
            self._asked[key] = asyncio.create_task(self._ask(key, token))
        return await asyncio.shield(self._asked[key])

    async def _ask(self, key: bytes, token: str) -> Bearer | None:
        """Ask the database, once for all who want to know."""
        times = self._times_forgotten
        try:
            bearer = await run_db(tokens.find_bearer, token)
        except DatabaseError:
            known = self._known.get(key)
            if known is None or time.monotonic() - known.since > STALE_SECONDS:
                raise
            logger.warning("database is away, a token is believed", extra={"action": "token_believed"})
            return known.bearer
        finally:
            del self._asked[key]
        if times == self._times_forgotten:  # else what was read may be old already
            self._known[key] = _Known(bearer, time.monotonic())
            self._known.move_to_end(key)
            while len(self._known) > CAPACITY:
                self._known.popitem(last=False)
        return bearer

    async def _listen(self) -> None:
        bus = get_bus()
        bus.on_reset(self._forget)
        try:
            await bus.subscribe(tokens.CHANNEL, lambda _: self._forget())
        except BusUnavailable:  # the process ends
            return
        self._forget()  # what was learnt before anybody could tell us

    def _forget(self) -> None:
        self._times_forgotten += 1
        self._known.clear()


_doorkeepers: dict[asyncio.AbstractEventLoop, Doorkeeper] = {}


def _doorkeeper() -> Doorkeeper:
    loop = asyncio.get_running_loop()
    doorkeeper = _doorkeepers.get(loop)
    if doorkeeper is None:
        for closed in [other for other in _doorkeepers if other.is_closed()]:
            del _doorkeepers[closed]
        doorkeeper = _doorkeepers[loop] = Doorkeeper()
    return doorkeeper
