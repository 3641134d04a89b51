"""What staff see of an actor's key-value storage: keys in order, page by page, and values. Nothing is changed."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import QuerySet
from django.db.models.functions import Length

from actors import kv
from actors.models import ActorStorage, StoredEntry

PAGE = 100
HEX_BYTES = 4_096
"""Of a value that is no text, shown."""
_ROW_BYTES = 16


@dataclass(frozen=True, slots=True)
class Stored:
    """One entry without its value, of which it has the length in bytes."""

    key: bytes
    value_bytes: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Keys:
    """A page of keys in bytewise order; `next` begins the page after it, None if this is the last."""

    entries: list[Stored]
    next: bytes | None


def used_bytes(actor_id: str) -> int:
    """Return what the storage uses of its quota."""
    used = ActorStorage.objects.filter(pk=actor_id).values_list("used_bytes", flat=True).first()
    return used or 0


def keys_from(actor_id: str, prefix: bytes, first: bytes) -> Keys:
    """Return the keys with a prefix, from `first` on."""
    span = kv.prefixed(prefix)
    rows = _entries(actor_id).filter(key__gte=max(span.first, first))
    if span.end is not None:
        rows = rows.filter(key__lt=span.end)
    found = [
        Stored(bytes(key), length, _moment(updated_ms))
        for key, length, updated_ms in rows.annotate(length=Length("value"))
        .order_by("key")
        .values_list("key", "length", "updated_ms")[: PAGE + 1]
    ]
    return Keys(found[:PAGE], found[PAGE].key if len(found) > PAGE else None)


def find_value(actor_id: str, key: bytes) -> tuple[bytes, datetime] | None:
    """Return a value and when it was put there; None if there is none."""
    row = _entries(actor_id).filter(key=key).values_list("value", "updated_ms").first()
    return None if row is None else (bytes(row[0]), _moment(row[1]))


def shown(value: bytes) -> tuple[str, str]:
    """Return what a value seems to be, `JSON`, `text` or `bytes`, and how to read it."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "bytes", _hex(value)
    try:
        return "JSON", json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        pass
    printable = all(character.isprintable() or character in "\t\r\n" for character in text)
    return ("text", text) if printable else ("bytes", _hex(value))


def _hex(value: bytes) -> str:
    lines = []
    for at in range(0, min(len(value), HEX_BYTES), _ROW_BYTES):
        row = value[at : at + _ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{at:06x}  {row.hex(' '):<{3 * _ROW_BYTES}} {text}")
    if len(value) > HEX_BYTES:
        lines.append(f"and {len(value) - HEX_BYTES:,} bytes more")
    return "\n".join(lines)


def _entries(actor_id: str) -> QuerySet[StoredEntry]:
    """Return the entries of an actor that is not destroyed: of one that is, nothing can be read any more."""
    alive = ActorStorage.objects.filter(pk=actor_id, erase_at=None)
    return StoredEntry.objects.filter(actor_id__in=alive.values("pk"))


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
