"""An actor's key-value storage in the database (PROTOCOL §6): what it holds is what was last acknowledged.

Whoever asks has to have the actor now: to be its runner, in the generation the runner has heard of (DESIGN I12).
A read is one statement that says so itself, and so is a snapshot; where it finds nothing, the row is looked at
once more, because to have found nothing and to have lost the actor look the same. A write locks the actor's row,
which the actor workflow locks too: it is committed before the generation is over, or refused.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction

from actors import kv
from actors.errors import StorageKeyNotFound, StorageRefused
from actors.kv import Span
from actors.models import Actor, ActorStorage, StoredEntry
from orchestrator import VERSION, clock
from orchestrator.contention import again
from orchestrator.ids import is_id
from runners.models import Runner
from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDeleteResponse,
    KvDropRequest,
    KvDropResponse,
    KvErrorResponse,
    KvGetRequest,
    KvGetResponse,
    KvListRequest,
    KvListResponse,
    KvMetadata,
    KvPutRequest,
    KvPutResponse,
    KvRequestData,
    KvResponseData,
)
from runners.storage import Caller

DELETE_ROWS = 256
"""Entries deleted in one transaction, 32 MiB at the most: other writers wait no longer than that takes."""
FETCH_ROWS = 64
"""Entries fetched at a time: what a list gathers is looked at before there is more of it."""

_ENTRY = StoredEntry._meta.db_table
_STORAGE = ActorStorage._meta.db_table
_ACTOR = Actor._meta.db_table
_RUNNER = Runner._meta.db_table

_ENTRY_BYTES = f"length(key) + {kv.KEY_OVERHEAD_BYTES} + length(value)"

Row = tuple[bytes, bytes, str, int]
"""Key, value, version, updated_ms."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition of SQL, and its parameters."""

    sql: str
    parameters: tuple[Any, ...]


def serve(caller: Caller, actor_id: str, request: KvRequestData) -> KvResponseData:
    """Answer a runner. A put is written whole or not at all, and is committed when this returns.

    A deletion of more than `DELETE_ROWS` entries is carried out in as many transactions as it takes, each of
    which asks whose the actor is: one that fails may have deleted the first of them.
    """
    kept = connection.connection
    try:
        return _answered(caller, actor_id, request)
    except (OperationalError, InterfaceError):
        if connection.connection is kept and connection.is_usable():
            raise
    connection.close()  # it was kept since the last request and has broken; to ask for the same twice does no harm
    return _answered(caller, actor_id, request)


def _answered(caller: Caller, actor_id: str, request: KvRequestData) -> KvResponseData:
    try:
        return _served(caller, actor_id, request)
    except StorageRefused as refusal:
        return KvErrorResponse(refusal.message)


def _served(caller: Caller, actor_id: str, request: KvRequestData) -> KvResponseData:
    match request:
        case KvGetRequest(keys):
            return KvGetResponse(*_columns(_get(caller, actor_id, request, keys)))
        case KvListRequest(query, reverse, limit):
            rows = _list(caller, actor_id, request, kv.selected(query), bool(reverse), kv.row_limit(limit))
            return KvListResponse(*_columns(rows))
        case KvPutRequest():
            _put(caller, actor_id, request)
            return KvPutResponse()
        case KvDeleteRequest(keys):
            _delete(caller, actor_id, request, _among(keys))
            return KvDeleteResponse()
        case KvDeleteRangeRequest(start, end):
            _delete(caller, actor_id, request, within(Span(start, end)))
            return KvDeleteResponse()
        case KvDropRequest():
            _delete(caller, actor_id, request, within(kv.EVERYTHING))
            return KvDropResponse()


def _columns(rows: Sequence[Row]) -> tuple[list[bytes], list[bytes], list[KvMetadata]]:
    metadata = [KvMetadata(version.encode(), updated_ms) for _, _, version, updated_ms in rows]
    return [row[0] for row in rows], [row[1] for row in rows], metadata


# Reads


def find_value(*, actor_id: str, key: bytes) -> tuple[bytes, int]:
    """Return value and ms of the last put, whoever has the actor; of a destroyed one nothing is found.

    Raises:
        StorageKeyNotFound: there is no such key.
    """
    alive = Condition(f"EXISTS (SELECT 1 FROM {_ACTOR} WHERE id = %s AND destroyed_at IS NULL)", (actor_id,))
    found = _select(actor_id, (_among([key]), alive))
    if not found:
        raise StorageKeyNotFound
    [(_, value, _, updated_ms)] = found
    return value, updated_ms


def _get(caller: Caller, actor_id: str, request: KvRequestData, keys: Sequence[bytes]) -> list[Row]:
    kept = _checked(caller, actor_id, request)
    found = _select(actor_id, (_among(keys), kept)) if keys else []
    if not found:
        _check_owner(caller, actor_id)
    by_key = {row[0]: row for row in found}
    return [by_key[key] for key in dict.fromkeys(keys) if key in by_key]


def _list(
    caller: Caller, actor_id: str, request: KvRequestData, span: Span, reverse: bool, limit: int
) -> list[Row]:
    kept = _checked(caller, actor_id, request)
    order = f"ORDER BY key {'DESC' if reverse else 'ASC'} LIMIT {limit}"
    found = _select(actor_id, (within(span), kept), order, max_bytes=kv.ANSWER_LIMIT_BYTES)
    if not found:
        _check_owner(caller, actor_id)
    return found


def _checked(caller: Caller, actor_id: str, request: KvRequestData) -> Condition:
    """Return the condition that the actor is the caller's, having looked at what is asked for.

    Whose the actor is comes first: nobody learns of limits what he may not touch.
    """
    if not is_id(actor_id):
        raise _no_actor()
    try:
        kv.check(request)
    except StorageRefused:
        _check_owner(caller, actor_id)
        raise
    sql, parameters = "id = %s AND runner_id = %s", (actor_id, caller.runner_id)
    if caller.generation is None:
        return Condition(f"EXISTS (SELECT 1 FROM {_ACTOR} WHERE {sql})", parameters)
    sql += " AND generation = %s"
    return Condition(f"EXISTS (SELECT 1 FROM {_ACTOR} WHERE {sql})", (*parameters, caller.generation))


def _select(
    actor_id: str, conditions: Sequence[Condition], order: str = "", max_bytes: int | None = None
) -> list[Row]:
    """Return the entries that fulfil all conditions, as one statement sees them.

    Raises:
        StorageRefused: they amount to more than `max_bytes`; no more than that was fetched.
    """
    where = " AND ".join(["actor_id = %s", *(condition.sql for condition in conditions)])
    sql = f"SELECT key, value, version, updated_ms FROM {_ENTRY} WHERE {where} {order}"
    parameters = [actor_id, *(value for condition in conditions for value in condition.parameters)]
    if max_bytes is None:
        with connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return [_row(*values) for values in cursor.fetchall()]
    return _gather(sql, parameters, max_bytes)


@again
def _gather(sql: str, parameters: Sequence[Any], max_bytes: int) -> list[Row]:
    rows: list[Row] = []
    with _streaming(), connection.chunked_cursor() as cursor:
        cursor.execute(sql, parameters)
        while found := cursor.fetchmany(FETCH_ROWS):
            for values in found:
                row = _row(*values)
                max_bytes -= len(row[0]) + len(row[1]) + kv.ROW_OVERHEAD_BYTES
                if max_bytes < 0:
                    raise StorageRefused("the answer is too large: ask for fewer entries, by a limit or a range")
                rows.append(row)
    return rows


def _streaming() -> AbstractContextManager[None]:
    """Return what a cursor that fetches bit by bit needs: on PostgreSQL a transaction.

    On SQLite it would take the lock of all writers for the time of a read.
    """
    return transaction.atomic() if connection.vendor == "postgresql" else nullcontext()


def _row(key: Any, value: Any, version: str, updated_ms: int) -> Row:
    return bytes(key), bytes(value), version, updated_ms


# Writes


@again
def _put(caller: Caller, actor_id: str, request: KvPutRequest) -> None:
    with transaction.atomic(durable=True):
        _lock(caller, actor_id)
        kv.check(request)
        entries = dict(zip(request.keys, request.values, strict=True))  # of a key given twice, the last
        if not entries:
            return
        used_bytes, replaced_bytes = _account(caller, actor_id, _among(list(entries)))
        added_bytes = kv.stored_bytes(entries) - replaced_bytes
        kv.check_quota(used_bytes, added_bytes, settings.ENV.actor_storage_bytes)
        kv.check_entries(entries)
        _insert(actor_id, entries)
        _charge(actor_id, added_bytes)


@again
def _delete(caller: Caller, actor_id: str, request: KvRequestData, which: Condition) -> None:
    deleted = DELETE_ROWS
    while deleted == DELETE_ROWS:
        with transaction.atomic(durable=True):
            _lock(caller, actor_id)
            kv.check(request)
            _account(caller, actor_id)
            deleted = delete_some(actor_id, which)


def delete_some(actor_id: str, which: Condition, limit: int = DELETE_ROWS) -> int:
    """Delete at most `limit` entries, the first in order, and take them off the account; return how many.

    To be called with the actor's row locked, or destroyed.
    """
    chosen = f"actor_id = %s AND key IN (SELECT key FROM {_ENTRY} WHERE actor_id = %s AND {which.sql}"
    chosen += f" ORDER BY key LIMIT {limit})"
    parameters = [actor_id, actor_id, *which.parameters]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT count(*), coalesce(sum({_ENTRY_BYTES}), 0) FROM {_ENTRY} WHERE {chosen}", parameters
        )
        count, freed_bytes = cursor.fetchone()
        if count:
            cursor.execute(f"DELETE FROM {_ENTRY} WHERE {chosen}", parameters)
            _charge(actor_id, -int(freed_bytes))
    return int(count)


def _lock(caller: Caller, actor_id: str) -> None:
    """Lock the actor's row to the end of the transaction. It is the first to be locked, here and everywhere."""
    if not is_id(actor_id):
        raise _no_actor()
    _check_owner(caller, actor_id, lock=" FOR NO KEY UPDATE" if connection.vendor == "postgresql" else "")


def _check_owner(caller: Caller, actor_id: str, lock: str = "") -> None:
    """Refuse whoever does not have the actor now.

    Raises:
        StorageRefused: it is nobody's, or that of another runner, which those of other namespaces don't learn.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT runner_id, generation, namespace_id FROM {_ACTOR} WHERE id = %s{lock}", [actor_id])
        row = cursor.fetchone()
    runner_id, generation, namespace_id = row or ("", None, None)
    if runner_id == caller.runner_id and caller.generation in (None, generation):
        return
    if runner_id not in ("", caller.runner_id) and _is_in_namespace(caller, namespace_id):
        raise StorageRefused("actor does not belong to runner")
    raise _no_actor()


def _is_in_namespace(caller: Caller, namespace_id: str | None) -> bool:
    return Runner.objects.filter(pk=caller.runner_id, namespace_id=namespace_id).exists()


def _no_actor() -> StorageRefused:
    return StorageRefused("actor does not exist")


def _account(caller: Caller, actor_id: str, which: Condition | None = None) -> tuple[int, int]:
    """Return what the storage uses and what the entries amount to, now that nobody else can change it.

    Of a runner with two sockets the older one is refused: what it had asked for and not heard of must not
    come true after what the newer one was told.
    """
    replaced, parameters = "0", [caller.runner_id, actor_id]
    if which is not None:
        replaced = f"(SELECT coalesce(sum({_ENTRY_BYTES}), 0) FROM {_ENTRY} WHERE actor_id = %s AND {which.sql})"
        parameters += [actor_id, *which.parameters]
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT (SELECT socket_id FROM {_RUNNER} WHERE id = %s),"
            f" (SELECT used_bytes FROM {_STORAGE} WHERE actor_id = %s), {replaced}",
            parameters,
        )
        socket_id, used_bytes, replaced_bytes = cursor.fetchone()
    if socket_id != caller.socket_id:
        raise StorageRefused("the runner has another connection")
    return used_bytes or 0, int(replaced_bytes)


def _insert(actor_id: str, entries: dict[bytes, bytes]) -> None:
    now_ms = int(clock.seconds() * 1000)
    places = ", ".join(["(%s, %s, %s, %s, %s)"] * len(entries))
    values = [part for key, value in entries.items() for part in (actor_id, key, value, VERSION, now_ms)]
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {_ENTRY} (actor_id, key, value, version, updated_ms) VALUES {places}"
            " ON CONFLICT (actor_id, key) DO UPDATE SET"
            " value = excluded.value, version = excluded.version, updated_ms = excluded.updated_ms",
            values,
        )


def _charge(actor_id: str, added_bytes: int) -> None:
    """Add to the account, which is opened by the first put."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {_STORAGE} SET used_bytes = used_bytes + %s WHERE actor_id = %s", [added_bytes, actor_id]
        )
        if cursor.rowcount == 0:
            cursor.execute(
                f"INSERT INTO {_STORAGE} (actor_id, used_bytes) VALUES (%s, %s)", [actor_id, added_bytes]
            )


# Which entries


def _among(keys: Sequence[bytes]) -> Condition:
    return Condition(f"key IN ({', '.join(['%s'] * len(keys))})" if keys else "1 = 0", tuple(keys))


def within(span: Span) -> Condition:
    """Return the condition that a key is of a span."""
    if span.end is None:
        return Condition("key >= %s", (span.first,))
    return Condition(f"key >= %s AND key {'<=' if span.closed else '<'} %s", (span.first, span.end))
