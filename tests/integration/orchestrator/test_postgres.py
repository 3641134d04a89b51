"""On a PostgreSQL server of its own: which isolation is asked for, and what is run again."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dj_database_url
import psycopg
import pytest
from django.db import OperationalError, connections, transaction

from orchestrator import contention
from orchestrator.contention import again, was_broken_off
from tests.support import postgres

pytestmark = pytest.mark.postgres
ALIASES = ("one", "two")


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with postgres.running() as url:
        yield url


@pytest.fixture
def two(server_url: str, django_db_blocker: Any) -> Iterator[None]:
    """Connections `one` and `two`, of each thread, to a database with a table of two rows, 0 each."""
    database = dict(dj_database_url.parse(server_url)) | {"ENGINE": "orchestrator.postgres"}
    for alias in ALIASES:
        connections.settings[alias] = connections.configure_settings({"default": database})["default"]
    with django_db_blocker.unblock():
        run("one", "DROP TABLE IF EXISTS counter; CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER)")
        run("one", "INSERT INTO counter VALUES (1, 0), (2, 0)")
        run("one", "ALTER DATABASE torpor SET default_transaction_isolation = 'serializable'")
        for alias in ALIASES:
            connections[alias].close()
        yield
        for alias in ALIASES:
            connections[alias].close()
            del connections[alias], connections.settings[alias]


def run(alias: str, sql: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)


def asked(alias: str, sql: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def add_to(alias: str, *rows: int, between: Callable[[], None] = lambda: None) -> None:
    """Add 1 to rows, one after the other, in one transaction."""
    with transaction.atomic(using=alias):
        for row in rows:
            run(alias, f"UPDATE counter SET n = n + 1 WHERE id = {row}")
            if row == rows[0]:
                between()


def test_transactions_read_what_is_committed_whatever_the_default_of_the_server(two):
    assert asked("one", "SHOW transaction_isolation") == "serializable"  # alone
    with transaction.atomic(using="one"):
        assert asked("one", "SHOW transaction_isolation") == "read committed"


def test_of_two_in_a_deadlock_both_succeed(two):
    both_have_one = threading.Barrier(2, timeout=10)
    met: set[str] = set()
    errors: list[OperationalError] = []

    def meet(alias: str) -> None:
        if alias not in met:  # whoever comes again finds nobody
            met.add(alias)
            both_have_one.wait()

    def cross(alias: str, *rows: int) -> None:
        try:
            again(add_to)(alias, *rows, between=lambda: meet(alias))
        except OperationalError as error:
            errors.append(error)
        finally:
            connections[alias].close()

    others = [
        threading.Thread(target=cross, args=("one", 1, 2)),
        threading.Thread(target=cross, args=("two", 2, 1)),
    ]
    for thread in others:
        thread.start()
    for thread in others:
        thread.join()
    assert errors == []
    assert asked("one", "SELECT min(n) FROM counter") == 2


def test_a_statement_alone_that_cannot_be_put_in_order_is_run_again(two, server_url):
    run("two", "BEGIN")
    run("two", "UPDATE counter SET n = n + 1 WHERE id = 1")
    first = connections["two"].connection

    def add_one() -> None:
        run("one", "UPDATE counter SET n = n + 1 WHERE id = 1")  # waits for the other, and fails the first time
        connections["one"].close()

    second = threading.Thread(target=add_one)
    second.start()
    with psycopg.connect(server_url, autocommit=True) as onlooker:
        while not onlooker.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchone():
            assert second.is_alive()
    first.execute("COMMIT")
    second.join()
    assert asked("one", "SELECT n FROM counter WHERE id = 1") == 2


class BrokenOff(Exception):
    sqlstate = "40001"


class Away(Exception):
    sqlstate = "57P01"


def failing(cause: type[Exception], times: int) -> tuple[Callable[[], str], list[int]]:
    calls: list[int] = []

    def work() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OperationalError("no") from cause()
        return "done"

    return work, calls


def test_what_was_broken_off_is_run_again_a_few_times_and_no_more():
    work, _ = failing(BrokenOff, contention.ATTEMPTS - 1)
    assert again(work)() == "done"
    work, calls = failing(BrokenOff, contention.ATTEMPTS)
    with pytest.raises(OperationalError) as raised:
        again(work)()
    assert was_broken_off(raised.value)
    assert len(calls) == contention.ATTEMPTS


def test_whatever_else_is_wrong_is_told_at_once():
    work, calls = failing(Away, 1)
    with pytest.raises(OperationalError):
        again(work)()
    assert len(calls) == 1


@pytest.mark.django_db
def test_part_of_a_transaction_is_not_run_again():
    work, calls = failing(BrokenOff, 1)
    with transaction.atomic(), pytest.raises(OperationalError):
        again(work)()
    assert len(calls) == 1
