"""What the database of an engine says when a run is over, as plain rows."""

from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.rows import dict_row

from actors.kv import KEY_OVERHEAD_BYTES

Row = dict[str, Any]

_QUERIES = {
    "actors": "SELECT * FROM actors_actor",
    "runners": "SELECT * FROM runners_runner",
    "commands": "SELECT runner_id, seq, actor_id, generation, kind FROM runners_command",
    "connections": "SELECT id, state, runner_id, claimed_until, ended_at FROM runners_serverlessconnection",
    "timeline": "SELECT actor_id, generation, at, label, data FROM orchestrator_timelineentry"
    " WHERE actor_id <> '' ORDER BY at, id",
    "set_aside": "SELECT workflow, key, signal, error FROM orchestrator_setasidesignal",
    "accounts": "SELECT s.actor_id, s.used_bytes,"
    f" (SELECT coalesce(sum(length(key) + {KEY_OVERHEAD_BYTES} + length(value)), 0)"
    " FROM actors_storedentry e WHERE e.actor_id = s.actor_id) AS stored_bytes FROM actors_actorstorage s",
    "entries": "SELECT actor_id, key, value FROM actors_storedentry",
    "pairs": "SELECT * FROM gateway_hibernatingpair WHERE gateway_id IN"
    " (SELECT id FROM gateway_gatewaylease WHERE expires_at > now())",
}


@dataclass(slots=True)
class Facts:
    """Rows by table, each a dict of its columns."""

    actors: list[Row] = field(default_factory=list)
    runners: list[Row] = field(default_factory=list)
    commands: list[Row] = field(default_factory=list)
    connections: list[Row] = field(default_factory=list)
    timeline: list[Row] = field(default_factory=list)
    set_aside: list[Row] = field(default_factory=list)
    accounts: list[Row] = field(default_factory=list)
    entries: list[Row] = field(default_factory=list)
    pairs: list[Row] = field(default_factory=list)


def read_facts(database: psycopg.Connection) -> Facts:
    """Read everything in one snapshot."""
    with database.transaction(), database.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return Facts(**{name: cursor.execute(query).fetchall() for name, query in _QUERIES.items()})  # type: ignore[arg-type]
