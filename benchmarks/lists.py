"""python -m benchmarks.lists: open the staff's pages on a million actors, and print what each takes.

On a PostgreSQL of its own, in one process without a web server: the time of a page is what Django needs for it,
queries and HTML. Namespaces, pools and states are as uneven as they are in life: one has almost everything, the
others have little, and what is rare is old, which is the worst that can happen to a list of the newest.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from tests.support import postgres
from tests.support.valkey import Valkey

ROUNDS = 5
BOUND_MS = 300
BOUND_QUERIES = 12

_OTHERS = "generate_series(1, %(others)s) n"
_FILL = [
    """
    CREATE FUNCTION id_of(n bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT lpad(n::text, 30, '0') $$
    """,
    """
    INSERT INTO orchestrator_namespace (id, name, display_name, created_at)
    SELECT id_of(n), 'namespace-' || n, 'N', now() FROM generate_series(1, 20) n
    """,
    # A thousandth of the actors, the oldest, is of another namespace, pool and state.
    """
    INSERT INTO actors_actor (
        id, namespace_id, name, key, pool_name, crash_policy, created_at, status, generation, runner_id,
        event_index, stop_reason, wake_after, cause, retries, alarm_overdue, slept_at, destroyed_at, due_at,
        version
    )
    SELECT id_of(n), id_of(CASE WHEN n <= %(few)s THEN 2 ELSE 1 END), 'name-' || n %% 100, 'key-' || n,
        CASE WHEN n <= 2 * %(few)s THEN 'rare' ELSE 'pool-' || n %% 10 END, 'sleep', now(), s, 0,
        CASE WHEN s IN ('starting', 'running', 'stopping') THEN id_of(n %% 500) ELSE '' END,
        -1, '', false, '', 0, false, now(), CASE WHEN s = 'destroyed' THEN now() END,
        CASE WHEN s NOT IN ('asleep', 'destroyed') THEN now() END, 0
    FROM (
        SELECT n, CASE WHEN n <= %(few)s THEN %(rare)s WHEN n %% 100 = 0 THEN 'running' ELSE %(usual)s END AS s
        FROM generate_series(1, %(actors)s) n
    ) numbered
    """,
    """
    INSERT INTO runners_actorname (namespace_id, name, metadata)
    SELECT id_of(1), 'name-' || n, '{}' FROM generate_series(0, 99) n
    """,
    """
    INSERT INTO runners_runnerconfig (
        id, namespace_id, name, kind, url, headers, slots_per_runner, min_runners, max_runners, runners_margin,
        request_lifespan, drain_on_version_upgrade, paused, options, endpoint_epoch, created_at, updated_at,
        successes, failures, desired, poll_failures, version
    )
    SELECT id_of(n), id_of(1), 'pool-' || n, 'serverless', 'http://x', '{}', 1, 0, 9, 0, interval '900 s', true,
        false, '{}', 0, now(), now(), 0, 0, 0, 0, 0
    FROM generate_series(1, 200) n
    """,
    f"""
    INSERT INTO runners_runner (
        id, namespace_id, name, key, runner_version, total_slots, used_slots, state, cordoned, holds_key,
        socket_id, connected_at, last_ping_at, last_rtt_ms, stop_reason, command_seq, version, protocol_version,
        created_at, due_at, stop_at
    )
    SELECT id_of(n), id_of(1), 'pool-' || n %% 10, 'key-' || n, 1, 9999, 1,
        CASE WHEN n <= 500 THEN 'live' ELSE 'stopped' END, false, n <= 500, '', now(), now(), 0, '', 0, 0, 7,
        now(), now(), CASE WHEN n > 500 THEN now() END
    FROM {_OTHERS}
    """,
    f"""
    INSERT INTO runners_serverlessconnection (
        id, pool_id, state, endpoint_epoch, runner_id, created_at, claimed_by, claimed_until, ended_at
    )
    SELECT id_of(n), id_of(1 + n %% 200), CASE WHEN n <= 500 THEN 'ready' ELSE 'ended' END, 0, id_of(n), now(), '',
        now(), CASE WHEN n > 500 THEN now() END
    FROM {_OTHERS}
    """,
    """
    INSERT INTO orchestrator_timelineentry (
        at, source, target, via, label, actor_id, generation, runner_id, connection_id, pool_id, data
    )
    SELECT now() - (%(actors)s - n) * interval '1 ms', CASE WHEN n < 100 THEN 'User' ELSE 'Actor workflow' END,
        'Runner', '[]', 'StartActor', id_of(1 + n %% 9999), 0, '', '', '', '{}'
    FROM generate_series(1, %(actors)s) n
    """,
    f"""
    INSERT INTO orchestrator_auditentry (at, "user", action, model, target, outcome)
    SELECT now(), 'root', 'wake', 'actor', id_of(n), 'asked for' FROM {_OTHERS}
    """,
]


def main() -> None:
    """Fill a database, open every page, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lists", description=__doc__)
    parser.add_argument("--actors", type=int, default=1_000_000)
    parser.add_argument("--rare", default="asleep", help="the state of the few oldest actors")
    parser.add_argument("--usual", default="asleep", help="the state of almost all others")
    parser.add_argument("--without", nargs="*", default=[], help="indexes to drop first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torpor-lists-") as directory, postgres.running() as database_url:
        valkey = Valkey(Path(directory))
        valkey.start()
        try:
            settings = {"DATABASE_URL": database_url, "REDIS_URL": valkey.url, "TORPOR_STATE": directory}
            os.environ.update(settings, DJANGO_SETTINGS_MODULE="orchestrator.settings")
            _measure(options)
        finally:
            valkey.kill()


def _measure(options: argparse.Namespace) -> None:
    import django

    django.setup()
    from django.contrib.auth import get_user_model
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        for index in options.without:
            cursor.execute(f'DROP INDEX "{index}"')
        numbers = {"actors": options.actors, "few": options.actors // 1000, "others": options.actors // 10}
        for statement in _FILL:
            cursor.execute(statement, numbers | {"rare": options.rare, "usual": options.usual})
        cursor.execute("VACUUM ANALYZE")
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root", password="secret"))
    print(f"{options.actors:,} actors, few {options.rare}, most {options.usual}, without {options.without}")
    for url in _pages(options.actors):
        client.get(url)
        took = []
        with CaptureQueriesContext(connection):
            client.get(url)
            count = len(connection.queries_log)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            answer = client.get(url)
            took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, (url, answer.status_code)
        median = statistics.median(took)
        mark = "" if median <= BOUND_MS and count <= BOUND_QUERIES else "  !"
        print(f"{median:8.1f} ms {count:3} queries  {url[:110]}{mark}", flush=True)


def _pages(actors: int) -> list[str]:
    actor, usual, rare = f"{actors // 2:030}", f"{1:030}", f"{2:030}"
    lists = [
        *(f"actors/actor/?{query}" for query in _actor_queries(actor, usual, rare, actors)),
        f"actors/actor/{actor}/change/",
        f"actors/actor/{actor}/timeline/",
        *(f"runners/runner/{query}" for query in ("", "?state=live", "?state=stopped", "?cordoned__exact=1")),
        f"runners/runner/?namespace__id__exact={rare}",
        f"runners/runner/?namespace__id__exact={usual}&name__exact=pool-3",
        "runners/runner/?q=key-77",
        f"runners/runner/{7:030}/change/",
        "runners/runnerconfig/",
        f"runners/runnerconfig/{7:030}/change/",
        *(f"runners/serverlessconnection/{query}" for query in ("", "?state__exact=ready", "?state__exact=open")),
        *(f"orchestrator/timelineentry/{query}" for query in ("", f"?q={9:030}", f"?q={actor}")),
        "orchestrator/auditentry/",
        "orchestrator/auditentry/?q=root",
        f"orchestrator/auditentry/?q={actor}",
    ]
    return [
        *(f"/admin/{one}" for one in lists),
        "/console/",
        f"/console/actors/{actor}/",
        f"/console/runners/{7:030}/",
    ]


def _actor_queries(actor: str, usual: str, rare: str, actors: int) -> list[str]:
    states = ("created", "pending", "backoff", "starting", "running", "stopping", "asleep", "destroyed")
    return [
        "",
        f"before={actor}",
        f"after={actor}",
        f"before={60:030}",
        *(f"status__exact={state}" for state in states),
        *(f"namespace__id__exact={namespace}" for namespace in (usual, rare, f"{9:030}")),
        *(f"namespace__id__exact={namespace}&status__exact=running" for namespace in (usual, rare)),
        f"namespace__id__exact={usual}&pool_name__exact=pool-3",
        f"namespace__id__exact={rare}&pool_name__exact=rare",
        f"namespace__id__exact={usual}&pool_name__exact=rare",
        f"namespace__id__exact={usual}&pool_name__exact=none",
        f"runner_id__exact={7:030}",
        f"q={actor}",
        "q=name-7",
        f"q=name-{actors % 100}/key-{actors}",
    ]


if __name__ == "__main__":
    main()
