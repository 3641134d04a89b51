"""Django's PostgreSQL backend with the isolation our locks are made for, whatever the server's default is.

Transactions ask for READ COMMITTED, as whoever locks a row has to see what was committed before it came by it. A
statement outside of one is a transaction by itself, in the server's isolation: it is run again when it is broken
off (`orchestrator.contention`).
"""

from collections.abc import Callable
from typing import Any

from django.db.backends.postgresql import base
from psycopg import IsolationLevel

from orchestrator.contention import again


class DatabaseWrapper(base.DatabaseWrapper):
    """One connection. `OPTIONS` of the settings win over ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.execute_wrappers.append(_alone_again)

    def get_connection_params(self) -> dict[str, Any]:
        """Return Django's parameters, with the isolation of transactions."""
        ours = {"isolation_level": IsolationLevel.READ_COMMITTED}
        self.settings_dict["OPTIONS"] = ours | self.settings_dict["OPTIONS"]
        return super().get_connection_params()


def _alone_again(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Run a statement, and run it again if it is a transaction by itself that was broken off."""
    if many or context["connection"].in_atomic_block:
        return execute(sql, params, many, context)
    return again(execute)(sql, params, many, context)
