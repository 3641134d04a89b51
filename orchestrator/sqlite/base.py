"""Django's SQLite backend with the settings several writers need, and a fair gate before its write lock.

Write-ahead logging lets readers go on while one writes; IMMEDIATE transactions take the write lock when they
begin, since one that began by reading cannot wait for it later; `synchronous=NORMAL` makes a commit safe from a
crash of the process and leaves the last moments at the mercy of a power cut. The gate (`gate.py`) is taken before
a transaction, or a single write outside one, and left with it. It adds order and nothing else: what keeps
writers apart is SQLite. Databases in memory, and those named by a `file:` URI, have no gate.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db.backends.sqlite3 import base
from django.db.utils import OperationalError

from orchestrator.sqlite.gate import Gate, GateTimeout

BUSY_SECONDS = 30.0
"""How long a writer waits for those ahead, at the gate and again at SQLite's own lock."""

DEFAULT_OPTIONS: dict[str, Any] = {
    "timeout": BUSY_SECONDS,
    "transaction_mode": "IMMEDIATE",
    "init_command": "PRAGMA synchronous=NORMAL",
}
_WRITE = re.compile(
    r"\s*(?:INSERT|UPDATE|DELETE|REPLACE|CREATE|ALTER|DROP|REINDEX|VACUUM|ANALYZE)\b", re.IGNORECASE
)


class DatabaseWrapper(base.DatabaseWrapper):
    """One connection, and its place in the queue of writers. `OPTIONS` of the settings win over ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._gate: Gate | None = None

    def get_connection_params(self) -> dict[str, Any]:
        """Return Django's parameters, completed by `DEFAULT_OPTIONS`."""
        self.settings_dict["OPTIONS"] = DEFAULT_OPTIONS | self.settings_dict["OPTIONS"]
        return super().get_connection_params()

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Open the file, create it if there is none, and see to it that it has a write-ahead log."""
        name = str(conn_params["database"])
        gated = not self.is_in_memory_db() and not name.startswith("file:")
        self._gate = Gate(f"{name}.lock", conn_params["timeout"]) if gated else None
        connection = super().get_new_connection(conn_params)
        try:
            self._use_write_ahead_log(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor whose writes outside a transaction pass the gate."""
        return self.connection.cursor(factory=lambda connection: _Cursor(connection, self._through_gate))

    def _use_write_ahead_log(self, connection: Any) -> None:
        """Turn the log on. Only the first connection ever has to, and then alone: it would not wait for others."""
        if self._gate is None or connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            return
        self._enter_gate()
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            self._leave_gate()

    def _start_transaction_under_autocommit(self) -> None:
        self._enter_gate()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]  # not in the stubs
        except BaseException:
            self._leave_gate()
            raise

    def commit(self) -> None:
        """Commit, and let the next writer in. If it fails, the transaction goes on until it is rolled back."""
        super().commit()
        self._leave_gate()

    def rollback(self) -> None:
        """Roll back, and let the next writer in."""
        try:
            super().rollback()
        finally:
            self._leave_gate()

    def close(self) -> None:
        """Close, which rolls back what was not committed, and let the next writer in."""
        try:
            super().close()
        finally:
            self._leave_gate()

    @contextmanager
    def _through_gate(self, sql: str) -> Iterator[None]:
        """Hold the gate while a write runs outside a transaction; one that opens a transaction keeps it.

        `INSERT … RETURNING` commits when its rows are read, shortly after it has left: then the next writer
        is stopped by SQLite's lock for that moment.
        """
        if self.connection.in_transaction or _WRITE.match(sql) is None:
            yield
            return
        self._enter_gate()
        try:
            yield
        finally:
            if not self.connection.in_transaction:
                self._leave_gate()

    def _enter_gate(self) -> None:
        if self._gate is not None:
            try:
                self._gate.enter()
            except GateTimeout:
                raise OperationalError("database is locked") from None

    def _leave_gate(self) -> None:
        if self._gate is not None:
            self._gate.leave()


class _Cursor(base.SQLiteCursorWrapper):
    """Django's cursor, which asks `gate(sql)` for a context to run each statement in."""

    def __init__(self, connection: Any, gate: Callable[[str], Any]) -> None:
        super().__init__(connection)
        self._gate = gate

    def execute(self, query: str, params: Any = None) -> Any:
        """Run one statement."""
        with self._gate(query):
            return super().execute(query, params)

    def executemany(self, query: str, param_list: Any) -> Any:
        """Run one statement for each of the parameters."""
        with self._gate(query):
            return super().executemany(query, param_list)
