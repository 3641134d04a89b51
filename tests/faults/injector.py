"""Carries out faults on a fleet. Each leaves everything whole again, as a supervisor or an operator would."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import psycopg
import redis

from tests.faults import points
from tests.faults.fleet import Fleet
from tests.faults.history import History, Injected
from tests.faults.schedule import Fault
from tests.support.child import Child
from tests.support.relay import Relay

POINT_SECONDS = 5.0  # so long an armed point waits for a worker
SLOW_SECONDS = 0.03
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.02

Hit = list[tuple[str, int]]
"""Names and process ids of those that were hit; none: the fault found nobody and does not count."""


class Injector:
    """One fleet's tormentor. A process that is being hit already is left alone by other faults."""

    def __init__(self, fleet: Fleet, history: History) -> None:
        self._fleet = fleet
        self._history = history
        self._busy: set[str] = set()

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        """Inject each fault at its time, and return when everything has been put right again."""
        loop = asyncio.get_running_loop()
        beginning = loop.time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                await asyncio.sleep(max(0.0, beginning + fault.at - loop.time()))
                group.create_task(self.inject(fault))

    async def inject(self, fault: Fault) -> None:
        """Inject a fault now, and return when everything has been put right again."""
        began = time.time()
        hit = await self._action(fault)(fault)
        if hit:
            names, pids = tuple(name for name, _ in hit), tuple(pid for _, pid in hit)
            self._history.injected.append(Injected(fault, began, time.time(), names, pids))

    def _action(self, fault: Fault) -> Callable[[Fault], Awaitable[Hit]]:
        verb, _, whom = fault.kind.partition(" ")
        fleet = self._fleet
        groups: dict[str, Sequence[Child]] = {
            "web": fleet.cluster.webs,
            "worker": fleet.cluster.workers,
            "connector": fleet.cluster.connectors,
            "sweeper": [fleet.cluster.sweeper],
            "runner": fleet.applications,
            "endpoint": [fleet.endpoint],
            "valkey": [fleet.valkey],
            "postgres": [fleet.postgres],
        }
        cables = {
            "valkey": [fleet.valkey_cable],
            "postgres": [fleet.postgres_cable],
            "runner": fleet.runner_cables,
        }
        if verb in ("cut", "black-hole", "slow"):
            return partial(self._disturb, verb, whom, cables[whom])
        if whom.partition(" ")[2] in points.POINTS:
            return partial(self._at_point, verb, whom.partition(" ")[2])
        special: dict[str, Callable[[Fault], Awaitable[Hit]]] = {
            "kill all workers": self._kill_all_workers,
            "wipe valkey": self._wipe,
            "read-only valkey": partial(self._configure, ["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
            "full valkey": partial(self._configure, ["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
            "restart postgres": partial(self._end_postgres, signal.SIGINT),
            "crash postgres": partial(self._end_postgres, signal.SIGQUIT),
            "kill connections": self._kill_connections,
            "no connections left": self._use_up_connections,
            "lock tables": self._lock_tables,
            "endpoint fails": partial(self._endpoint, "fail"),
            "endpoint hangs": partial(self._endpoint, "hold"),
            "endpoint ends early": partial(self._endpoint, "end"),
            "endpoint cuts": partial(self._endpoint, "go"),
        }
        if fault.kind in special:
            return special[fault.kind]
        by_verb = {"kill": self._kill, "freeze": self._freeze, "lose": self._freeze, "restart": self._restart}
        return partial(by_verb[verb], groups[whom])

    # Processes

    async def _kill(self, group: Sequence[Child], fault: Fault) -> Hit:
        return await self._hit(group, fault, self._killed)

    async def _killed(self, child: Child, seconds: float) -> None:
        child.kill()
        await asyncio.sleep(seconds)
        Child.start(child)

    async def _freeze(self, group: Sequence[Child], fault: Fault) -> Hit:
        return await self._hit(group, fault, self._frozen)

    async def _frozen(self, child: Child, seconds: float) -> None:
        child.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            child.thaw()

    async def _restart(self, group: Sequence[Child], fault: Fault) -> Hit:
        return await self._hit(group, fault, self._restarted)

    async def _restarted(self, child: Child, _: float) -> None:
        child.ask_to_end()
        if not await _ended(child):
            child.kill()
        Child.start(child)

    async def _hit(
        self, group: Sequence[Child], fault: Fault, how: Callable[[Child, float], Awaitable[None]]
    ) -> Hit:
        """Do it to the first process, from the fault's target on, that is free."""
        turn = fault.target % len(group)
        for child in [*group[turn:], *group[:turn]]:
            if child.name not in self._busy and child.alive:
                self._busy.add(child.name)
                hit = [(child.name, child.pid)]
                try:
                    await how(child, fault.seconds)
                finally:
                    self._busy.remove(child.name)
                return hit
        return []

    async def _kill_all_workers(self, fault: Fault) -> Hit:
        workers = [one for one in self._fleet.cluster.workers if one.name not in self._busy]
        self._busy |= {one.name for one in workers}
        hit = [(one.name, one.pid) for one in workers]
        for one in workers:
            one.kill()
        await asyncio.sleep(fault.seconds)
        for one in workers:
            Child.start(one)
        self._busy -= {one.name for one in workers}
        return hit

    async def _at_point(self, verb: str, point: str, fault: Fault) -> Hit:
        workers = self._fleet.cluster.workers
        number = signal.SIGKILL if verb == "kill" else signal.SIGSTOP
        points.arm(self._fleet.points, point, number)
        deadline = time.monotonic() + POINT_SECONDS
        while time.monotonic() < deadline:
            for one in workers:
                if one.name not in self._busy and (not one.alive if verb == "kill" else _is_frozen(one)):
                    self._busy.add(one.name)
                    hit = [(one.name, one.pid)]
                    await asyncio.sleep(fault.seconds)
                    if verb == "kill":
                        Child.start(one)
                    else:
                        one.thaw()
                    self._busy.remove(one.name)
                    return hit
            await asyncio.sleep(LOOK_SECONDS)
        points.disarm(self._fleet.points, point)
        return []

    # Cables

    async def _disturb(self, verb: str, whom: str, cables: Sequence[Relay], fault: Fault) -> Hit:
        number = fault.target % len(cables)
        cable, name = cables[number], f"cable of {whom} {number}"
        if name in self._busy:
            return []
        self._busy.add(name)
        if verb == "cut":
            cable.cut()
        elif verb == "black-hole":
            cable.go_dead()
            await asyncio.sleep(fault.seconds)
            cable.revive()
        else:
            cable.slow_down(SLOW_SECONDS)
            await asyncio.sleep(fault.seconds)
            cable.slow_down(0)
        self._busy.remove(name)
        return [(name, 0)]

    # Stores

    async def _wipe(self, _: Fault) -> Hit:
        return await self._configure(["FLUSHALL"], [], Fault(0, "", 0, 0))

    async def _configure(self, before: Sequence[str], after: Sequence[str], fault: Fault) -> Hit:
        valkey = self._fleet.valkey
        if valkey.name in self._busy or not valkey.alive:
            return []
        self._busy.add(valkey.name)
        try:
            await asyncio.to_thread(self._tell_valkey, before)
            await asyncio.sleep(fault.seconds)
            await asyncio.to_thread(self._tell_valkey, after)
        except redis.ConnectionError:
            return []  # it was just being started
        finally:
            self._busy.remove(valkey.name)
        return [(valkey.name, valkey.pid)]

    def _tell_valkey(self, commands: Sequence[str]) -> None:
        with self._fleet.redis() as client:
            for command in commands:
                client.execute_command(*command.split())

    async def _end_postgres(self, number: signal.Signals, fault: Fault) -> Hit:
        return await self._hit([self._fleet.postgres], fault, partial(self._postgres_ended, number))

    async def _postgres_ended(self, number: signal.Signals, server: Child, seconds: float) -> None:
        os.kill(server.pid, number)
        assert await _ended(server), server.output()
        await asyncio.sleep(seconds)
        Child.start(server)

    async def _kill_connections(self, _: Fault) -> Hit:
        return await asyncio.to_thread(self._connections_killed)

    def _connections_killed(self) -> Hit:
        with suppress(psycopg.OperationalError), self._fleet.database() as database:
            others = database.execute(
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()
            return [("postgres", 0)] if others and others[0] else []
        return []

    async def _use_up_connections(self, fault: Fault) -> Hit:
        hit = await self._kill_connections(fault)
        taken: list[psycopg.Connection] = []
        try:
            while hit:
                taken.append(await asyncio.to_thread(self._fleet.database))
        except psycopg.OperationalError:
            await asyncio.sleep(fault.seconds)
        finally:
            for connection in taken:
                connection.close()
        return hit

    async def _lock_tables(self, fault: Fault) -> Hit:
        with suppress(psycopg.OperationalError):
            database = await psycopg.AsyncConnection.connect(self._fleet.direct_url)
            async with database:
                await database.execute("SET lock_timeout = '3s'; LOCK TABLE actors_actor IN EXCLUSIVE MODE")
                await asyncio.sleep(fault.seconds)
            return [("postgres", 0)]
        return []

    # Endpoints

    async def _endpoint(self, mode: str, fault: Fault) -> Hit:
        """Take the runner away by ending its request, and treat those that follow as the mode says."""
        endpoint = self._fleet.endpoint
        if endpoint.name in self._busy or not endpoint.alive:
            return []
        self._busy.add(endpoint.name)
        try:
            async with httpx.AsyncClient(base_url=f"{endpoint.url}/control", timeout=5) as control:
                await control.post(f"/{mode}")
                await control.post("/cut")
                await asyncio.sleep(fault.seconds)
                await control.post("/go")
        except httpx.HTTPError:
            return []  # it was just being started
        finally:
            self._busy.remove(endpoint.name)
        return [(endpoint.name, endpoint.pid)]


async def _ended(child: Child) -> bool:
    """Wait until a process has ended; False if it takes too long."""
    deadline = time.monotonic() + STOP_SECONDS
    while child.alive:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(LOOK_SECONDS)
    return True


def _is_frozen(child: Child) -> bool:
    with suppress(FileNotFoundError):  # it has ended
        return Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    return False
