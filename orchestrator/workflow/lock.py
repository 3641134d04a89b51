"""A shard's lock in Redis: a lease, which gives order and spares work. Truth is in the rows (DESIGN §2)."""

import secrets
from types import TracebackType
from typing import Self

from django.conf import settings

from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox

_EXTEND = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""
_RELEASE_IF_IDLE = """
if redis.call('XLEN', KEYS[2]) > 0 then return 0 end
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
"""In one step, so that no signal can slip in between the last look and the release."""


class ShardLock:
    """The lease on one shard of one workflow. As a context manager it lets go at the end, whatever happened."""

    def __init__(self, workflow: str, shard: int) -> None:
        self._name = mailbox.lock_name(workflow, shard)
        self._stream = mailbox.stream_name(workflow, shard)
        self._token = secrets.token_hex(8)
        self._redis = get_redis()
        self._lease_ms = settings.ENV.lock_lease_ms

    def acquire(self) -> bool:
        """Take the lease if nobody has it."""
        return bool(self._redis.set(self._name, self._token, nx=True, px=self._lease_ms))

    def extend(self) -> bool:
        """Start the lease anew; False if it has lapsed."""
        return bool(self._redis.eval(_EXTEND, 1, self._name, self._token, self._lease_ms))

    def release_if_idle(self) -> bool:
        """Let go if the mailbox is empty; False, still holding, if there is more to do."""
        return bool(self._redis.eval(_RELEASE_IF_IDLE, 2, self._name, self._stream, self._token))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._redis.eval(_RELEASE, 1, self._name, self._token)
