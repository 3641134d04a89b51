"""What an engine of many processes takes up at a moment: of each process, of the database and of Redis."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import redis

from tests.faults.fleet import Fleet
from tests.support.child import Child

MIB = 1024 * 1024
LEVEL = {
    "live actors": "SELECT count(*) FROM actors_actor WHERE destroyed_at IS NULL",
    "commands": "SELECT count(*) FROM runners_command",
    "storage accounts": "SELECT count(*) FROM actors_actorstorage",
    "stored entries": "SELECT count(*) FROM actors_storedentry",
    "hibernating pairs": "SELECT count(*) FROM gateway_hibernatingpair",
    "leases": "SELECT count(*) FROM gateway_gatewaylease",
    "living runners": "SELECT count(*) FROM runners_runner WHERE state <> 'stopped'",
    "unended /start requests": "SELECT count(*) FROM runners_serverlessconnection WHERE state <> 'ended'",
    "signals set aside": "SELECT count(*) FROM orchestrator_setasidesignal",
    "connections to postgres": "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
}
GROWING = {
    "actors, destroyed": "SELECT count(*) FROM actors_actor WHERE destroyed_at IS NOT NULL",
    "runners, stopped": "SELECT count(*) FROM runners_runner WHERE state = 'stopped'",
    "/start requests, ended": "SELECT count(*) FROM runners_serverlessconnection WHERE state = 'ended'",
    "timeline entries": "SELECT count(*) FROM orchestrator_timelineentry",
}
"""What is kept of the past, by intention: the retention times are longer than a run."""
_TASKS = re.compile(r'^torpor_event_loop_tasks\{pid="(\d+)"\} (\S+)$', re.MULTILINE)

Figure = tuple[str, int]
"""What is measured, and the id of the process it is of, 0 for none: one that was replaced begins anew."""


def take_figures(fleet: Fleet) -> dict[Figure, float]:
    """Take all figures now; those of whatever is away for a moment are left out."""
    taken: dict[Figure, float] = {}
    for child in [*fleet.cluster.children, *fleet.applications]:
        with suppress(OSError):  # it is being started again
            taken |= {(f"{child.name}: {name}", child.pid): value for name, value in _of_process(child)}
    with suppress(psycopg.OperationalError), fleet.database() as database:
        for name, query in (LEVEL | GROWING).items():
            [(count,)] = database.execute(query).fetchall()
            taken[f"rows: {name}" if "pg_stat" not in query else name, 0] = count
    with suppress(redis.RedisError), fleet.redis() as client:
        taken["redis: keys", 0] = client.dbsize()
        taken["redis: MiB", 0] = client.info("memory")["used_memory"] / MIB
        taken["redis: clients", 0] = client.info("clients")["connected_clients"]
        taken["redis: channels", 0] = len(client.pubsub_channels())
    with suppress(httpx.HTTPError):
        names = {web.pid: web.name for web in fleet.cluster.webs}
        for pid, tasks in _TASKS.findall(httpx.get(f"{fleet.urls[0]}/metrics", timeout=10).text):
            if int(pid) in names:
                taken[f"{names[int(pid)]}: tasks", int(pid)] = float(tasks)
    return taken


def _of_process(child: Child) -> Iterator[tuple[str, float]]:
    process = Path(f"/proc/{child.pid}")
    memory = dict(re.findall(r"^(Rss|Pss): +(\d+) kB$", (process / "smaps_rollup").read_text(), re.MULTILINE))
    yield "RSS, MiB", int(memory["Rss"]) / 1024
    yield "PSS, MiB", int(memory["Pss"]) / 1024
    files = [_target(file) for file in (process / "fd").iterdir()]
    yield "files", len(files)
    yield "sockets", sum(target.startswith("socket:") for target in files)
    yield "threads", len(os.listdir(process / "task"))


def _target(file: Path) -> str:
    try:
        return str(file.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""
