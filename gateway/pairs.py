"""Keeps the rows of this process's WebSockets that may hibernate, many at a time, and the lease they stand on."""

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings

from gateway import pair_rows
from gateway.pair_rows import Pair
from orchestrator.db import run_db

logger = logging.getLogger(__name__)

RENEWALS = 3
"""A lease is renewed so many times within its length."""


class Pairs:
    """Those of one gateway. `lapsed` is called when a start may have missed them."""

    def __init__(self, gateway_id: bytes, lapsed: Callable[[], None]) -> None:
        self._gateway_id = gateway_id.hex()
        self._lapsed = lapsed
        self._renewer: asyncio.Task[None] | None = None
        self._first: asyncio.Task[bool] | None = None
        self._new: list[tuple[Pair, asyncio.Future[bool]]] = []
        self._old: set[str] = set()
        self._writer: asyncio.Task[None] | None = None

    async def keep(self, actor_id: str, generation: int, request_id: bytes) -> bool:
        """Have every later StartActor of the actor list the pair; False if one may have been sent without it.

        Raises:
            django.db.Error: the database is away.
        """
        await self._hold_lease()
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._new.append((Pair(actor_id, generation, request_id.hex()), kept))
        self._write_soon()
        return await kept

    async def leave(self, request_id: bytes) -> None:
        """Have the pair listed once more, as its client has left."""
        await run_db(pair_rows.leave, self._gateway_id, request_id.hex())

    def forget(self, request_id: bytes) -> None:
        """Have the pair listed no more, soon."""
        self._old.add(request_id.hex())
        self._write_soon()

    async def end(self) -> None:
        """Forget everything, as the process ends."""
        self.close()
        if self._first is not None:
            await run_db(pair_rows.forget_gateway, self._gateway_id)

    def close(self) -> None:
        """Do nothing more."""
        for task in (self._renewer, self._writer):
            if task is not None:
                task.cancel()

    # Ours

    async def _hold_lease(self) -> None:
        if self._first is None or (self._first.done() and self._first.exception() is not None):
            self._first = asyncio.create_task(self._renew())
        await asyncio.shield(self._first)
        if self._renewer is None:
            self._renewer = asyncio.create_task(self._keep_renewing())

    async def _renew(self) -> bool:
        lease = timedelta(milliseconds=settings.ENV.gateway_lease_ms)
        return await run_db(pair_rows.renew, self._gateway_id, lease)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(settings.ENV.gateway_lease_ms / 1000 / RENEWALS)
            try:
                held = await self._renew()
            except Exception:  # the database is away: should the lease lapse, the next renewal finds out
                logger.exception("could not renew the lease", extra={"action": "gateway_lease"})
            else:
                if not held:
                    logger.error("the gateway's lease has lapsed", extra={"action": "gateway_lease"})
                    self._lapsed()

    def _write_soon(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def _write(self) -> None:
        """Write what has come, and what has come meanwhile, until nothing is left."""
        while self._new or self._old:
            new, self._new = self._new, []
            old, self._old = self._old, set()
            try:
                if old:
                    await run_db(pair_rows.forget, self._gateway_id, old)
                late = await run_db(pair_rows.keep, self._gateway_id, [pair for pair, _ in new]) if new else set()
            except Exception as error:
                logger.exception("could not write pairs", extra={"action": "gateway_pairs"})
                self._old |= old  # with the next ones: until then they are listed in vain
                for _, kept in new:
                    if not kept.done():
                        kept.set_exception(error)
                return
            for pair, kept in new:
                if kept.done():  # whoever asked for it has left
                    self._old.add(pair.request_id)
                else:
                    kept.set_result(pair.request_id not in late)
