"""Rows read and written many at a time, by statements put together once per model.

A wake reads and writes a dozen rows. Django's query builder makes each of these statements anew, which takes
several times as long as the database needs to run them.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from django.db import connection, models, transaction

M = TypeVar("M", bound=models.Model)


def lock(model: type[M], keys: Collection[str]) -> list[M]:
    """Return the rows of these keys, in the order of the keys, locked to the end of the transaction."""
    if not keys:
        return []
    sql, names, converters = _selection(model)
    places = ", ".join(["%s"] * len(keys))
    with connection.cursor() as cursor:
        cursor.execute(sql.format(places), list(keys))
        found = [list(values) for values in cursor.fetchall()]
    for values in found:
        for place, column, convert in converters:
            values[place] = convert(values[place], column, connection)
    return [model.from_db(connection.alias, names, values) for values in found]


@cache
def _selection(model: type[models.Model]) -> tuple[str, list[str], list[tuple[int, Any, Any]]]:
    """Return the statement with a place for the keys, the fields' names, and what Python makes of which value."""
    meta, quote = model._meta, connection.ops.quote_name
    fields: Any = meta.concrete_fields
    key: Any = meta.pk
    columns = [field.get_col(meta.db_table) for field in fields]
    converters = [
        (place, column, convert)
        for place, column in enumerate(columns)
        for convert in (*connection.ops.get_db_converters(column), *column.get_db_converters(connection))
    ]
    names = ", ".join(quote(field.column) for field in fields)
    pk = quote(key.column)
    sql = f"SELECT {names} FROM {quote(meta.db_table)} WHERE {pk} IN ({{}}) ORDER BY {pk}"
    if connection.features.has_select_for_no_key_update:
        sql += " FOR NO KEY UPDATE"
    return sql, [field.attname for field in fields], converters


def insert(rows: Sequence[models.Model]) -> None:
    """Store new rows of one model, all or none. Its keys are made by the database; the rows don't learn them."""
    if not rows:
        return
    sql, fields = _insertion(type(rows[0]))
    values = [parameters(row, fields) for row in rows]
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.executemany(sql, values)


@cache
def _insertion(model: type[models.Model]) -> tuple[str, list[Any]]:
    fields: list[Any] = [field for field in model._meta.concrete_fields if not field.primary_key]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(field.column) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    return f"INSERT INTO {quote(model._meta.db_table)} ({columns}) VALUES ({places})", fields


def parameters(row: models.Model, fields: Iterable[Any]) -> list[Any]:
    """Return the values of a row's fields as the database takes them; none of them is set by being saved."""
    values = []
    for field in fields:
        value = getattr(row, field.attname)
        prepare = _preparation(field)
        values.append(value if prepare is None else prepare(value))
    return values


@cache
def _preparation(field: Any) -> Callable[[Any], Any] | None:
    """Return what makes a parameter of a value of the field's type; None if the value is one already.

    Django would ask four functions per value, most of which return what they were given.
    """
    assert not getattr(field, "auto_now", False), f"{field} is set when it is saved"
    assert not getattr(field, "auto_now_add", False), f"{field} is set when it is added"
    match field:
        case models.CharField() | models.TextField() | models.BooleanField():
            return None
        case models.ForeignKey():
            return _preparation(field.target_field)
        case models.DateTimeField():
            return connection.ops.adapt_datetimefield_value
        case _:
            return lambda value: field.get_db_prep_save(value, connection)


def add(model: type[models.Model], columns: Sequence[str], amounts: Mapping[str, Sequence[int]]) -> None:
    """Add to the columns of rows: by key, an amount for each column."""
    if not amounts:
        return
    quote = connection.ops.quote_name
    additions = ", ".join(f"{quote(column)} = {quote(column)} + %s" for column in columns)
    key: Any = model._meta.pk
    sql = f"UPDATE {quote(model._meta.db_table)} SET {additions} WHERE {quote(key.column)} = %s"
    with connection.cursor() as cursor:
        cursor.executemany(sql, [[*amounts[pk], pk] for pk in sorted(amounts)])
