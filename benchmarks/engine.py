"""A whole engine to measure: stores as durable as in production, two web processes, a runner, an endpoint."""

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support import postgres
from tests.support.api import Api
from tests.support.child import Child
from tests.support.cluster import Cluster, Server
from tests.support.endpoint import Application, Endpoint, node_endpoint, node_runner
from tests.support.valkey import Valkey

Store = Literal["sqlite", "postgresql"]
RunnerKind = Literal["sdk", "npm"]
Cpu = dict[str, float]
"""CPU seconds by role: web, worker, stores, runner, client, other."""

POOL, COLD_POOL = "bench", "cold"
SLOTS = 1500
POOL_SETTINGS = {"drain_grace_period": 10}  # the reference's default does not fit any short lifespan
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
RUNNER_APP = Path(__file__).with_name("runner_app.py")

_VALKEY = ("--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction")
_DURABLE = ("fsync=on", "synchronous_commit=on", "full_page_writes=on")


@dataclass(frozen=True, slots=True)
class Engine:
    """A running engine. The runner of `POOL` is connected to the first web process."""

    server: str
    urls: list[str]
    api: Api
    endpoint_url: str
    roles: dict[str, list[Child]]
    manage: Callable[..., str] | None = None  # runs a management command; None: it has none

    def cpu(self) -> Cpu:
        """Return the CPU time used so far."""
        used = {role: sum(_cpu_seconds(child.pid) for child in children) for role, children in self.roles.items()}
        return used | {"client": time.process_time()}

    def memory_bytes(self) -> int:
        """Return the memory of the engine's own processes; pages they share are counted once (PSS)."""
        roles = (children for role, children in self.roles.items() if role != "runner")
        return sum(memory_bytes(child.pid) for children in roles for child in children)


@contextmanager
def running(
    server: Server, store: Store, runner: RunnerKind, webs: int = 2, workers: int = 1, runners: int = 1
) -> Iterator[Engine]:
    """Run an engine of this server on this store, with actors in Python or in Node.

    Each of the long-lived `runners` is connected to a web process of its own.
    """
    directory = Path(tempfile.mkdtemp(prefix="torpor-bench-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        redis = Valkey(directory, *_VALKEY)
        stores: list[Child] = [redis]
        stack.callback(redis.kill)
        redis.start()
        database_url = f"sqlite:///{directory}/torpor.sqlite3"
        if store == "postgresql":
            database = _postgres(stack)
            stores.append(database)
            database_url = database.create_database("torpor")
        cluster = stack.enter_context(Cluster(directory, database_url, redis.url, server, webs, workers))
        endpoint, long_lived = start_applications(stack, directory, runner, cluster.api, cluster.urls[:runners])
        roles: dict[str, list[Child]] = {
            "web": cluster.webs,
            "worker": cluster.workers,
            "stores": stores,
            "runner": [endpoint, *long_lived],
            "other": [cluster.connector, cluster.sweeper],
        }
        yield Engine(server, cluster.urls, cluster.api, endpoint.url, roles, cluster.manage)


def start_applications(
    stack: ExitStack, directory: Path, runner: RunnerKind, api: Api, urls: Sequence[str]
) -> tuple[Endpoint, list[Application]]:
    """Configure both pools, and start the endpoint of the one, and for the other a runner at each of the URLs."""
    endpoint = stack.enter_context(_endpoint(directory, runner))
    api.put_normal_pool(POOL)
    api.put_serverless_pool(COLD_POOL, endpoint.url, **POOL_SETTINGS)
    long_lived = [stack.enter_context(_runner(directory, runner, url)) for url in urls]
    for one in long_lived:
        one.wait("connected")
    return endpoint, long_lived


def _postgres(stack: ExitStack) -> postgres.Postgres:
    directory = postgres.new_directory()
    stack.callback(shutil.rmtree, directory)
    server = postgres.Postgres(directory)
    server.command += [part for setting in _DURABLE for part in ("-c", setting)]
    stack.callback(server.log.unlink, missing_ok=True)
    stack.callback(server.kill)
    server.start()
    return server


def _endpoint(directory: Path, runner: RunnerKind) -> Endpoint:
    if runner == "npm":
        return node_endpoint(directory)
    return Endpoint("endpoint", [sys.executable, str(RUNNER_APP), "--port", "0"], directory / "endpoint.log")


def _runner(directory: Path, runner: RunnerKind, url: str) -> Application:
    if runner == "npm":
        return node_runner(directory, url, POOL, SLOTS)
    where = ["--endpoint", url, "--pool", POOL, "--slots", str(SLOTS)]
    log = directory / f"runner-{url.rpartition(':')[2]}.log"
    return Application("runner", [sys.executable, str(RUNNER_APP), *where], log)


def _cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and its children, those that have ended included (proc(5), `stat`)."""
    process = Path(f"/proc/{pid}")
    try:
        ticks = (process / "stat").read_text().rpartition(")")[2].split()[11:15]  # utime, stime, cutime, cstime
        children = (process / "task" / str(pid) / "children").read_text().split()
    except FileNotFoundError:
        return 0.0  # it ended just now, and its parent's figures have it
    return sum(map(int, ticks)) / TICKS_PER_SECOND + sum(_cpu_seconds(int(child)) for child in children)


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of a process and its children (proc(5), `smaps_rollup`)."""
    process = Path(f"/proc/{pid}")
    lines = (process / "smaps_rollup").read_text().splitlines()
    [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
    children = (process / "task" / str(pid) / "children").read_text().split()
    return kilobytes * 1024 + sum(memory_bytes(int(child)) for child in children)
