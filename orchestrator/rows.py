"""Writing many changed rows at once, guarded by their version."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.db import connection, models

from orchestrator.errors import OrchestratorError
from orchestrator.statements import parameters


class StaleRow(OrchestratorError):
    """A row was changed by somebody else between reading and writing it."""


def save_guarded(rows: Sequence[models.Model], columns: Iterable[str]) -> None:
    """Write the columns of rows of one model, each only if its `version` is still the one that was read.

    One statement, executed for all rows in one round trip; `version` grows by one. To be called in a
    transaction.

    Raises:
        StaleRow: at least one row was changed meanwhile; the transaction must be rolled back.
    """
    if not rows:
        return
    meta = type(rows[0])._meta
    fields: list[Any] = [meta.get_field(name) for name in columns]
    key: Any = meta.pk
    quote = connection.ops.quote_name
    assignments = ", ".join(f"{quote(field.column)} = %s" for field in fields)
    sql = (
        f"UPDATE {quote(meta.db_table)} SET {assignments}, version = version + 1 "
        f"WHERE {quote(key.column)} = %s AND version = %s"
    )
    with connection.cursor() as cursor:
        cursor.executemany(sql, [[*parameters(row, fields), row.pk, row.version] for row in rows])  # type: ignore[attr-defined]
        if cursor.rowcount != len(rows):
            raise StaleRow(f"{len(rows) - cursor.rowcount} of {len(rows)} rows of {meta.label} are stale")
    for row in rows:
        row.version += 1  # type: ignore[attr-defined]
