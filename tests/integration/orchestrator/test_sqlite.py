import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connections, transaction

from tests.support.child import REPOSITORY

WRITER = REPOSITORY / "tests" / "support" / "sqlite_writer.py"
INSERT = "INSERT INTO counter VALUES (1)"
ORPHAN = "INSERT INTO child VALUES (7)"  # its parent is missing, which SQLite says at the commit


@pytest.fixture
def use(django_db_blocker: Any) -> Iterator[Callable[..., None]]:
    """Makes an alias of a database file known: `use(alias, name, **options)`."""
    aliases = []

    def add(alias: str, name: object, **options: object) -> None:
        database = {"ENGINE": "orchestrator.sqlite", "NAME": name, "OPTIONS": options}
        settings = connections.configure_settings({"default": database})
        connections.settings[alias] = settings["default"]
        aliases.append(alias)

    with django_db_blocker.unblock():
        yield add
        for alias in aliases:
            connections[alias].close()
            del connections[alias], connections.settings[alias]


@pytest.fixture
def file(use: Callable[..., None], tmp_path: Path) -> Path:
    """A database with a table; `one` and `two` are this thread's connections to it, `two` an impatient one."""
    path = tmp_path / "counter.sqlite3"
    use("one", path)
    use("two", path, timeout=0.1)
    run("one", "CREATE TABLE counter (writes INTEGER UNIQUE)")
    run("one", "CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    run("one", "CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    return path


def run(alias: str, sql: str) -> list[tuple[Any, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


def is_free(file: Path) -> bool:
    """Say whether a writer would get through the gate at once."""
    with open(f"{file}.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_many_writing_processes_take_turns(file: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, str(WRITER), str(file), "2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
        for _ in range(4)
    ]
    run("one", "INSERT INTO counter VALUES (0)")
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        print(file=writer.stdin, flush=True)
    waits = [json.loads(writer.communicate(timeout=60)[0]) for writer in writers]

    assert [writer.returncode for writer in writers] == [0] * len(writers)
    total = sum(len(of_one) for of_one in waits)
    assert run("one", "SELECT writes FROM counter") == [(total,)]
    assert min(len(of_one) for of_one in waits) > total / len(waits) / 3, "one came too short"
    assert max(max(of_one) for of_one in waits) < 1.5, "one waited too long"


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 1), ("foreign_keys", 1), ("busy_timeout", 30_000)],
)
def test_a_connection_is_set_up_for_several_writers(file: Path, pragma: str, value: object) -> None:
    assert run("one", f"PRAGMA {pragma}") == [(value,)]
    assert connections["one"].transaction_mode == "IMMEDIATE"


def test_options_of_the_settings_win(use: Callable[..., None], tmp_path: Path) -> None:
    use("own", tmp_path / "own.sqlite3", timeout=1, init_command="PRAGMA synchronous=FULL")
    assert run("own", "PRAGMA busy_timeout") == [(1_000,)]
    assert run("own", "PRAGMA synchronous") == [(2,)]


def test_connections_opened_at_once_all_find_a_new_file_usable(use: Callable[..., None], tmp_path: Path) -> None:
    use("new", tmp_path / "new.sqlite3")
    together = threading.Barrier(8)

    def open_one(_: int) -> list[tuple[Any, ...]]:
        together.wait()
        try:
            return run("new", "PRAGMA journal_mode")
        finally:
            connections["new"].close()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(open_one, range(8))) == [[("wal",)]] * 8


def test_the_gate_is_held_from_the_beginning_of_a_transaction_to_its_end(file: Path) -> None:
    assert is_free(file)
    with transaction.atomic("one"):
        assert not is_free(file)
        with transaction.atomic("one"):
            run("one", INSERT)
        assert not is_free(file)
    assert is_free(file)


def test_readers_pass_while_one_writes(file: Path) -> None:
    with transaction.atomic("one"):
        run("one", INSERT)
        assert run("two", "SELECT count(*) FROM counter") == [(0,)]
    assert run("two", "SELECT count(*) FROM counter") == [(1,)]


def fail_inside(file: Path) -> None:
    with transaction.atomic("one"):
        run("one", INSERT)
        raise ZeroDivisionError


def fail_at_commit(file: Path) -> None:
    with transaction.atomic("one"):
        run("one", ORPHAN)


def fail_outside_a_transaction(file: Path) -> None:
    run("one", INSERT)
    run("one", INSERT)


def fail_at_the_beginning(file: Path) -> None:
    run("one", "PRAGMA busy_timeout=100")
    connections["two"].ensure_connection()
    with connections["two"].connection as without_gate:
        without_gate.execute("BEGIN IMMEDIATE")
        with transaction.atomic("one"):
            raise AssertionError("two writers at a time")


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (fail_inside, ZeroDivisionError),
        (fail_at_commit, IntegrityError),
        (fail_outside_a_transaction, IntegrityError),
        (fail_at_the_beginning, OperationalError),
    ],
)
def test_the_gate_is_free_after_any_failure(
    file: Path, act: Callable[[Path], None], error: type[Exception]
) -> None:
    with pytest.raises(error):
        act(file)
    assert is_free(file)
    assert not connections["one"].connection.in_transaction


def test_closing_in_the_middle_of_a_transaction_frees_the_gate(file: Path) -> None:
    with transaction.atomic("one"):
        run("one", INSERT)
        connections["one"].close()
        assert is_free(file)
    assert run("one", "SELECT count(*) FROM counter") == [(0,)]


def test_a_single_write_queues_and_a_read_does_not(file: Path) -> None:
    with open(f"{file}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run("two", "SELECT count(*) FROM counter") == [(0,)]
        for write in (INSERT, "  insert into counter values (1) returning writes"):
            with pytest.raises(OperationalError, match="database is locked"):
                run("two", write)
    assert run("two", "INSERT INTO counter VALUES (2) RETURNING writes") == [(2,)]
    assert is_free(file)


def test_a_writer_that_gave_up_leaves_nothing_behind(file: Path) -> None:
    with transaction.atomic("one"), pytest.raises(OperationalError, match="database is locked"):
        transaction.atomic("two").__enter__()
    for thread in threading.enumerate():
        if thread.name == "sqlite-gate":
            thread.join(10)
    assert is_free(file)
    run("two", INSERT)


def test_a_killed_writer_frees_the_gate(file: Path) -> None:
    script = f"""if True:
        from django.conf import settings
        settings.configure(DATABASES={{"default": {{"ENGINE": "orchestrator.sqlite", "NAME": {str(file)!r}}}}})
        from django.db import transaction
        transaction.atomic().__enter__()
        print("inside", flush=True)
        input()
    """
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout.readline() == b"inside\n"
        assert not is_free(file)
        holder.kill()
    assert is_free(file)
    run("two", INSERT)


@pytest.mark.parametrize("name", [":memory:", "file:shared?mode=memory&cache=shared", "file:plain.sqlite3"])
def test_a_database_that_is_no_plain_file_has_no_gate(
    use: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    use("other", name)
    with transaction.atomic("other"):
        run("other", "CREATE TABLE counter (writes INTEGER)")
    assert not list(tmp_path.glob("*.lock"))
