"""A throw-away PostgreSQL server from the system's own packages, on a unix socket, without any durability."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import conninfo, sql

from tests.support.child import Child

OWNER = "postgres"  # whom the server runs as when we are root, which it refuses to be
USER = "torpor"
START_SECONDS = 30.0
MISSING = "PostgreSQL's server programs are not installed (Debian: apt-get install postgresql)"
_FAST = (
    "fsync=off",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "shared_buffers=32MB",
)


def is_installed() -> bool:
    """Say whether the server's programs are on this machine."""
    return _programs() is not None


def new_directory() -> Path:
    """Make a directory fit for `Postgres`: of a short path and its server's own."""
    directory = Path(tempfile.mkdtemp(prefix="torpor-pg-"))
    if os.geteuid() == 0:
        owner = pwd.getpwnam(OWNER)
        os.chown(directory, owner.pw_uid, owner.pw_gid)
    return directory


def url(directory: Path, database: str = "postgres") -> str:
    """Return the `DATABASE_URL` of a database of the server in that directory, which need not run yet."""
    return f"postgresql://{USER}@{quote(str(directory), safe='')}/{database}"


class Postgres(Child):
    """A server in a directory from `new_directory`; a test may kill and restart it.

    It is made to be fast, and may lose what was committed when it is killed; `settings` are in addition.
    """

    def __init__(self, directory: Path, *settings: str) -> None:
        programs = _programs()
        assert programs is not None, MISSING
        self.directory = directory
        self._data = directory / "data"
        self._initdb = [str(programs / "initdb"), "-D", str(self._data), "-U", USER, "-A", "trust", "--no-sync"]
        options = [part for setting in (*_FAST, "listen_addresses=", *settings) for part in ("-c", setting)]
        server = [str(programs / "postgres"), "-D", str(self._data), "-k", str(directory), *options]
        super().__init__("postgres", _unprivileged(server), Path(tempfile.gettempdir()) / f"{directory.name}.log")

    def start(self) -> None:
        """Start it, on a new cluster if there is none yet, and wait until it answers."""
        if not self._data.exists():
            command = _unprivileged([*self._initdb, "--locale", "C.UTF-8", "--encoding", "UTF8"])
            done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        super().start()
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                psycopg.connect(self._address("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self.alive, self.output()
                assert time.monotonic() < deadline, self.output()
                time.sleep(0.02)

    def quit(self) -> None:
        """End it at once, its helper processes first: when they outlive it, they still write to the directory."""
        self._end(signal.SIGQUIT)

    def create_database(self, name: str) -> str:
        """Create an empty database and return its `DATABASE_URL`."""
        with psycopg.connect(self._address("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return url(self.directory, name)

    def dump(self, name: str) -> bytes:
        """Return a database as `pg_dump` writes it, taken while it is in use."""
        return subprocess.run([*self._tool("pg_dump", name), "-Fc"], capture_output=True, check=True).stdout

    def restore(self, name: str, dump: bytes) -> None:
        """Put what was dumped into a database that is empty."""
        subprocess.run([*self._tool("pg_restore", name), "--exit-on-error"], input=dump, check=True)

    def _tool(self, program: str, database: str) -> list[str]:
        programs = _programs()
        assert programs is not None, MISSING
        return [str(programs / program), "-h", str(self.directory), "-U", USER, "-d", database]

    def _address(self, database: str) -> str:
        return conninfo.make_conninfo(host=str(self.directory), user=USER, dbname=database)


@contextmanager
def server(directory: Path | None = None, *settings: str) -> Iterator[Postgres]:
    """Run a server, by default in a directory of its own; afterwards nothing of it is left."""
    home = directory or new_directory()
    running_server = Postgres(home, *settings)
    try:
        running_server.start()
        yield running_server
    finally:
        running_server.quit()
        running_server.log.unlink(missing_ok=True)
        if directory is None:
            shutil.rmtree(home)


@contextmanager
def running() -> Iterator[str]:
    """Run a server with one empty database and give that database's `DATABASE_URL`."""
    with server() as running_server:
        yield running_server.create_database("torpor")


def _programs() -> Path | None:
    """Return where the newest server's programs are: Debian keeps them out of the path."""
    found = shutil.which("initdb")
    debian = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    candidates = sorted(debian, key=lambda path: float(path.parts[-3]), reverse=True)
    best = candidates[0] if candidates else Path(found) if found else None
    return best.parent if best else None


def _unprivileged(command: Sequence[str]) -> list[str]:
    """Return the command as one that its owner runs, if we are root."""
    if os.geteuid() != 0:
        return list(command)
    owner = pwd.getpwnam(OWNER)
    privileges = [f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups", "--no-new-privs"]
    return ["setpriv", *privileges, "--pdeathsig=KILL", *command]
