"""What the database has acknowledged is there after a power cut, a full disk and a restore from a backup."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import postgres
from tests.support.api import wait_until
from tests.support.child import REPOSITORY, Child

ACKNOWLEDGED = 40
KILLS = int(os.environ.get("FAULT_KILLS", "2"))
STORED = "SELECT value FROM actors_storedentry WHERE actor_id = ? AND key = ?"
UNEVEN = (
    "SELECT count(*) FROM actors_actorstorage s WHERE used_bytes <> (SELECT coalesce(sum(length(key) + 2 +"
    " length(value)), 0) FROM actors_storedentry e WHERE e.actor_id = s.actor_id)"
)


class Writer(Child):
    """A process that writes and says what was acknowledged."""

    def __init__(self, database_url: str, directory: Path) -> None:
        self.database_url = database_url
        env = {"DATABASE_URL": database_url, "TORPOR_STATE": str(directory), "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "tests.support.acknowledger", "0"]
        super().__init__("writer", command, directory / "writer.log", os.environ | env)

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command on the same database."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=REPOSITORY, env=self.env, capture_output=True, text=True, timeout=120, check=False
        )

    def begin(self, first: int) -> str:
        """Start to write from a number on, and return the id of the actor it writes for."""
        self.command[-1] = str(first)
        before = self.log.stat().st_size if self.log.exists() else 0
        self.start()
        wait_until(lambda: "ready " in self.output(before), self.output, 60)
        return self.output(before).partition("ready ")[2].split()[0]

    def said(self, word: str) -> list[str]:
        """Return what followed a word, of all whole lines so far."""
        lines = self.output().rpartition("\n")[0].splitlines()
        return [line.partition(" ")[2] for line in lines if line.startswith(f"{word} ")]

    @property
    def acknowledged(self) -> int:
        numbers = self.said("ok")
        return int(numbers[-1]) if numbers else -1

    def reaches(self, number: int) -> None:
        wait_until(lambda: self.acknowledged >= number, lambda: self.output()[-2000:], 60)


def migrated(writer: Writer) -> Writer:
    done = writer.manage("migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    return writer


@pytest.fixture(scope="module")
def empty_sqlite(tmp_path_factory) -> Path:
    """A database with nothing in it but its tables."""
    directory = tmp_path_factory.mktemp("empty")
    migrated(Writer(f"sqlite:///{directory}/torpor.sqlite3", directory))
    return directory / "torpor.sqlite3"


@pytest.fixture
def on_sqlite(empty_sqlite, tmp_path) -> Iterator[Writer]:
    shutil.copyfile(empty_sqlite, tmp_path / "torpor.sqlite3")
    writer = Writer(f"sqlite:///{tmp_path}/torpor.sqlite3", tmp_path)
    yield writer
    writer.kill()


def sqlite_holds(file: Path, actor_id: str) -> int:
    """Return the number stored in a SQLite file, which must be whole."""
    with sqlite3.connect(file) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute(UNEVEN).fetchone() == (0,)
        row = database.execute(STORED, (actor_id, b"count")).fetchone()
    database.close()
    return -1 if row is None else int(row[0])


def test_sqlite_is_whole_and_has_what_was_acknowledged_however_often_its_writer_is_killed(on_sqlite, tmp_path):
    number = 0
    for _ in range(KILLS):
        actor_id = on_sqlite.begin(number)
        on_sqlite.reaches(number + ACKNOWLEDGED)
        on_sqlite.kill()
        number = on_sqlite.acknowledged
        assert sqlite_holds(tmp_path / "torpor.sqlite3", actor_id) >= number
        number += 1


def test_a_full_disk_refuses_writes_loses_none_and_is_got_over(on_sqlite, tmp_path):
    actor_id = on_sqlite.begin(0)
    on_sqlite.reaches(ACKNOWLEDGED)
    largest = max(file.stat().st_size for file in tmp_path.glob("torpor.sqlite3*"))
    no_limit = resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE, (largest, no_limit[1]))
    wait_until(lambda: bool(on_sqlite.said("refused")), lambda: on_sqlite.output()[-2000:], 60)
    refused_at = on_sqlite.acknowledged
    resource.prlimit(on_sqlite.pid, resource.RLIMIT_FSIZE, no_limit)
    on_sqlite.reaches(refused_at + ACKNOWLEDGED)
    on_sqlite.kill()
    assert sqlite_holds(tmp_path / "torpor.sqlite3", actor_id) >= on_sqlite.acknowledged


def test_a_backup_of_sqlite_taken_while_it_is_written_to_is_whole(on_sqlite, tmp_path):
    actor_id = on_sqlite.begin(0)
    on_sqlite.reaches(ACKNOWLEDGED)
    before = on_sqlite.acknowledged
    backup = tmp_path / "copies" / "torpor.sqlite3"
    backup.parent.mkdir()
    done = on_sqlite.manage("backup", str(backup))
    assert done.returncode == 0, done.stderr
    on_sqlite.reaches(on_sqlite.acknowledged + ACKNOWLEDGED)  # it was not held up for good
    assert before <= sqlite_holds(backup, actor_id) < on_sqlite.acknowledged
    again = on_sqlite.manage("backup", str(backup))
    assert again.returncode != 0
    assert "exists already" in again.stderr
    restored = Writer(f"sqlite:///{backup}", tmp_path)
    assert restored.manage("migrate", "--check").returncode == 0


@pytest.mark.postgres
def test_postgresql_has_what_was_acknowledged_after_a_crash_and_in_a_dump(tmp_path):
    with postgres.server(None, "synchronous_commit=on") as server:
        writer = migrated(Writer(server.create_database("torpor"), tmp_path))
        try:
            actor_id = writer.begin(0)
            writer.reaches(ACKNOWLEDGED)
            acknowledged = writer.acknowledged
            server.quit()  # at once, as a crash: the next start has to recover
            wait_until(lambda: bool(writer.said("refused")), writer.output)
            server.start()
            assert postgresql_holds(writer.database_url, actor_id) >= acknowledged
            writer.reaches(acknowledged + ACKNOWLEDGED)
            acknowledged = writer.acknowledged
            copy = server.create_database("copy")
            server.restore("copy", server.dump("torpor"))
            assert postgresql_holds(copy, actor_id) >= acknowledged
            assert "pg_dump" in writer.manage("backup", str(tmp_path / "file")).stderr
        finally:
            writer.kill()


def postgresql_holds(database_url: str, actor_id: str) -> int:
    """Return the number stored in a PostgreSQL database, whose accounts must be even."""
    with psycopg.connect(database_url) as database:
        assert database.execute(UNEVEN).fetchone() == (0,)
        row = database.execute(STORED.replace("?", "%s"), (actor_id, b"count")).fetchone()
    return -1 if row is None else int(bytes(row[0]))
