"""The store as the actor's own code sees it: without what the SDK keeps there."""

from collections.abc import Sequence

from runners.protocol.messages import KvDeleteRangeRequest, KvListRangeQuery, KvListRequest, KvListResponse
from runners.sdk.errors import KvError
from runners.sdk.kv import Calls, Kv
from runners.sdk.saver import PREFIX


class ActorKv(Kv):
    """A Kv whose `list` and `drop` of everything leave the keys of the SDK, and what is behind them, alone."""

    def __init__(self, actor_id: str, calls: Calls) -> None:
        super().__init__(actor_id, calls)
        self._own = (actor_id, calls)

    async def list(
        self, prefix: bytes | str = b"", *, reverse: bool = False, limit: int | None = None
    ) -> Sequence[tuple[bytes, bytes]]:
        """Return (key, value) of the keys that begin with prefix, bytewise ascending; by default at most 16384."""
        if prefix:
            return await super().list(prefix, reverse=reverse, limit=limit)
        actor_id, calls = self._own
        query = KvListRangeQuery(b"", PREFIX, exclusive=True)
        answer = await calls.call(actor_id, KvListRequest(query, reverse, limit))
        if not isinstance(answer, KvListResponse):
            raise KvError(f"the engine answered with a {type(answer).__name__}")
        return list(zip(answer.keys, answer.values, strict=True))

    async def drop(self) -> None:
        """Remove everything. State, scheduled calls and sockets stay."""
        actor_id, calls = self._own
        await calls.call(actor_id, KvDeleteRangeRequest(b"", PREFIX))
