"""A shard's lock in Redis: a lease, which gives order and spares work. Truth is in the rows (DESIGN §2).

Whoever takes it, keeps it or lets go of it has to look into the mailbox as well, so each of these is one script:
a round trip less for every wake, and no signal can slip in between the last look and the release.
"""

import secrets
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from django.conf import settings

from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox

Found = list[tuple[bytes, list[bytes]]]
"""What waits in a mailbox, oldest first: the entry's id, and names and values of its fields in turn."""

_TAKE_UP = """
redis.call('DEL', KEYS[3])
local found = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[3])
if #found > 0 and not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return {} end
end
return found
"""
"""If it runs twice, as a command does when its answer is lost, the lease is its own."""
_GO_ON = """
if #ARGV > 3 then redis.call('XDEL', KEYS[2], unpack(ARGV, 4)) end
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return false end
local found = redis.call('XRANGE', KEYS[2], '-', '+', 'COUNT', ARGV[3])
if #found > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) else redis.call('DEL', KEYS[1]) end
return found
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class ShardLock:
    """The lease on one shard of one workflow. As a context manager it lets go at the end, whatever happened."""

    def __init__(self, workflow: str, shard: int) -> None:
        names = (mailbox.lock_name, mailbox.stream_name, mailbox.mark_name)
        self._keys = [name(workflow, shard) for name in names]
        self._token = secrets.token_hex(8)
        self._redis = get_redis()
        self._held = False

    def take_up(self) -> Found:
        """Note that a task has come for the shard, and return the first batch of what waits, with the lease.

        If nothing waits, or another worker has the lease, it is not taken and there is nothing to do.
        """
        found: Found = self._run(_TAKE_UP)
        self._held = bool(found)
        return found

    def go_on(self, handled: Sequence[bytes]) -> Found | None:
        """Remove what was handled, by id; start the lease anew and return the next batch of what waits.

        By id, as a worker whose lease has lapsed must not cut off another's signals. If nothing waits, the lease
        is given up. Returns None if it has lapsed.
        """
        found: Found | None = self._run(_GO_ON, *handled)
        self._held = bool(found)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._held:
            self._redis.eval(_RELEASE, 1, self._keys[0], self._token)

    def _run(self, script: str, *arguments: bytes) -> Any:
        env = settings.ENV
        first = (self._token, str(env.lock_lease_ms), str(env.batch_signals))
        return self._redis.eval(script, len(self._keys), *self._keys, *first, *arguments)
