"""Redis and PostgreSQL: wiped, full, restarted, out of connections, locked, in disagreement with the engine."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress

import psycopg
import redis

from tests.faults.injection.site import LOOK_SECONDS, Action, Hit, Site, has_ended
from tests.faults.schedule import Fault
from tests.support.child import Child

ISOLATION = "default_transaction_isolation"
POSTGRES: Hit = [("postgres", 0)]


def _configure(before: Sequence[str], after: Sequence[str] = ()) -> Action:
    """Return the action that gives Valkey commands, and others when it is over."""

    async def act(site: Site, fault: Fault) -> Hit:
        valkey = site.fleet.valkey
        if not site.is_free(valkey.name) or not valkey.alive:
            return []
        with site.holding(valkey.name):
            try:
                await asyncio.to_thread(_tell_valkey, site, before)
                await asyncio.sleep(fault.seconds)
                await asyncio.to_thread(_tell_valkey, site, after)
            except redis.ConnectionError:
                return []  # it was just being started
        return [(valkey.name, valkey.pid)]

    return act


def _tell_valkey(site: Site, commands: Sequence[str]) -> None:
    with site.fleet.redis() as client:
        for command in commands:
            client.execute_command(*command.split())


def _end_postgres(number: signal.Signals) -> Action:
    async def end(server: Child, seconds: float) -> None:
        os.kill(server.pid, number)
        assert await has_ended(server), server.output()
        await asyncio.sleep(seconds)
        Child.start(server)

    async def act(site: Site, fault: Fault) -> Hit:
        return await site.hit([site.fleet.postgres], fault, end)

    return act


async def _kill_connections(site: Site, _: Fault) -> Hit:
    return await asyncio.to_thread(_connections_killed, site)


def _connections_killed(site: Site) -> Hit:
    with suppress(psycopg.OperationalError), site.fleet.database() as database:
        others = database.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        ).fetchone()
        return POSTGRES if others and others[0] else []
    return []


async def _use_up_connections(site: Site, fault: Fault) -> Hit:
    hit = await _kill_connections(site, fault)
    taken: list[psycopg.Connection] = []
    try:
        while hit:
            taken.append(await asyncio.to_thread(site.fleet.database))
    except psycopg.OperationalError:
        await asyncio.sleep(fault.seconds)
    finally:
        for connection in taken:
            connection.close()
    return hit


async def _lock_tables(site: Site, fault: Fault) -> Hit:
    with suppress(psycopg.OperationalError):
        database = await psycopg.AsyncConnection.connect(site.fleet.direct_url)
        async with database:
            await database.execute("SET lock_timeout = '3s'; LOCK TABLE actors_actor IN EXCLUSIVE MODE")
            await asyncio.sleep(fault.seconds)
        return POSTGRES
    return []


async def _serializable(site: Site, fault: Fault) -> Hit:
    """Have every transaction fail that saw what another one changed, unless it says what isolation it wants."""
    if not site.is_free(ISOLATION):
        return []
    with site.holding(ISOLATION):
        if not await asyncio.to_thread(_set_isolation, site, "serializable"):
            return []
        await asyncio.sleep(fault.seconds)
        while True:
            if await asyncio.to_thread(_set_isolation, site, "read committed"):
                break
            await asyncio.sleep(LOOK_SECONDS)
    return POSTGRES


def _set_isolation(site: Site, level: str) -> bool:
    with suppress(psycopg.OperationalError), site.fleet.database() as database:
        database.execute(f"ALTER SYSTEM SET {ISOLATION} = '{level}'")
        database.execute("SELECT pg_reload_conf()")
        return True
    return False


async def _deadlock(site: Site, fault: Fault) -> Hit:
    """Lock rows against the engine's order, runners before actors, and never be the one that gives way."""
    loop = asyncio.get_running_loop()
    until = loop.time() + fault.seconds
    hit: Hit = []
    with suppress(psycopg.OperationalError):
        database = await psycopg.AsyncConnection.connect(site.fleet.direct_url, autocommit=True)
        async with database:
            await database.execute("SET deadlock_timeout = '1min'; SET lock_timeout = '5s'")
            while loop.time() < until:
                async with database.transaction():
                    await database.execute("SELECT 1 FROM runners_runner WHERE state = 'live' FOR UPDATE")
                    hit = POSTGRES
                    await asyncio.sleep(0.1)
                    await database.execute("SELECT 1 FROM actors_actor ORDER BY id DESC FOR UPDATE")
                await asyncio.sleep(0.1)
    return hit


ACTIONS: dict[str, Action] = {
    "wipe valkey": _configure(["FLUSHALL"]),
    "read-only valkey": _configure(["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
    "full valkey": _configure(["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
    "restart postgres": _end_postgres(signal.SIGINT),
    "crash postgres": _end_postgres(signal.SIGQUIT),
    "kill connections": _kill_connections,
    "no connections left": _use_up_connections,
    "lock tables": _lock_tables,
    "serializable postgres": _serializable,
    "deadlock postgres": _deadlock,
}
