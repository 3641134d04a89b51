"""Fills the table of actors with sleepers, to see what its size costs. Run inside the engine's Django."""

from django.db import connection

from actors.models import Actor

_FILL = """
WITH RECURSIVE number(n) AS (SELECT %s UNION ALL SELECT n + 1 FROM number WHERE n < %s)
INSERT INTO {table} ({columns}) SELECT {values} FROM {table}, number WHERE {table}.id = %s
"""
_ID = "'z' || '00000000000000000000' || CAST(100000000 + n AS TEXT)"  # 30 characters, as all ids have


def fill(first: int, count: int) -> None:
    """Copy a sleeping actor `count` times, from number `first` on; its key is not copied."""
    template = Actor.objects.filter(key=None, status=Actor.Status.ASLEEP)[0]
    special = {"id": _ID, "due_at": "NULL", "alarm_at": "NULL"}
    columns = [field.column for field in Actor._meta.concrete_fields]
    quoted = [connection.ops.quote_name(column) for column in columns]
    values = [special.get(column, quote) for column, quote in zip(columns, quoted, strict=True)]
    sql = _FILL.format(table=Actor._meta.db_table, columns=", ".join(quoted), values=", ".join(values))
    with connection.cursor() as cursor:
        cursor.execute(sql, [first, first + count - 1, template.pk])
        cursor.execute("ANALYZE")
