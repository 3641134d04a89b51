"""An actor's key-value storage as a matter of rules: limits, spans of keys, what an answer may hold. Does no I/O.

Keys are byte strings in bytewise order, unsigned, shorter first. The limits and the texts a runner is told are
those of PROTOCOL §6.3. `storage.py` is the shell around it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from actors.errors import StorageRefused
from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDropRequest,
    KvGetRequest,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListQuery,
    KvListRangeQuery,
    KvListRequest,
    KvPutRequest,
    KvRequestData,
)

KEY_LIMIT_BYTES = 2_048
KEY_OVERHEAD_BYTES = 2
"""What every key counts for beside its own bytes, against its own limit, a put's and the quota."""
VALUE_LIMIT_BYTES = 128 * 1024
KEYS_LIMIT = 128
"""Keys of one get or delete, entries of one put."""
PUT_LIMIT_BYTES = 976 * 1024
LIST_ROWS = 16_384
"""What a list without a limit gives at the most."""
ANSWER_LIMIT_BYTES = 31 * 1024 * 1024
"""What a list may gather: an answer is one frame, of 32 MiB at the most (PROTOCOL §1.2)."""
ROW_OVERHEAD_BYTES = 256
"""What each entry of an answer counts for beside key and value: its metadata, and the memory it takes here."""


@dataclass(frozen=True, slots=True)
class Span:
    """The keys from `first` up to `end`, which is left out unless `closed`; all from `first` on without an end."""

    first: bytes
    end: bytes | None = None
    closed: bool = False


EVERYTHING = Span(b"")


def prefixed(prefix: bytes) -> Span:
    """Return the span of the keys that begin with a prefix, itself included.

    It ends before the prefix with its last byte raised by one; a byte `\\xff` has no successor, so that it is
    cut off first. A prefix of nothing else has no end: whatever follows it in order begins with it.
    """
    stem = prefix.rstrip(b"\xff")
    return Span(prefix, stem[:-1] + bytes([stem[-1] + 1]) if stem else None)


def selected(query: KvListQuery) -> Span:
    """Return the keys that a list asks for."""
    match query:
        case KvListAllQuery():
            return EVERYTHING
        case KvListPrefixQuery(key):
            return prefixed(key)
        case KvListRangeQuery(start, end, exclusive):
            return Span(start, end, closed=not exclusive)


def check(request: KvRequestData) -> None:
    """Refuse what needs no look at the storage. Of a put, `check_entries` is for later.

    Raises:
        StorageRefused: it goes beyond a limit.
    """
    match request:
        case KvGetRequest(keys) | KvDeleteRequest(keys):
            _check_count(keys)
            for key in keys:
                _check_key("key", key)
        case KvListRequest(KvListPrefixQuery(key)):
            _check_key("prefix key", key)
        case KvListRequest(KvListRangeQuery(start, end)) | KvDeleteRangeRequest(start, end):
            _check_key("start key", start)
            _check_key("end key", end)
        case KvPutRequest(keys, values):
            _check_put(keys, values)
        case KvListRequest() | KvDropRequest():
            pass


def _check_count(keys: Sequence[bytes]) -> None:
    if len(keys) > KEYS_LIMIT:
        raise StorageRefused(f"a maximum of {KEYS_LIMIT} keys is allowed")


def _check_put(keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    if len(keys) != len(values):
        raise StorageRefused("Keys list length != values list length")
    if len(keys) > KEYS_LIMIT:
        raise StorageRefused(f"A maximum of {KEYS_LIMIT} key-value entries is allowed")
    if sum(map(_size, keys, values)) > PUT_LIMIT_BYTES:
        raise StorageRefused("total payload is too large (max 976 KiB)")


def check_entries(entries: Mapping[bytes, bytes]) -> None:
    """Refuse a put for the size of a key, then of a value: the last of its checks (PROTOCOL §6.3).

    Raises:
        StorageRefused: one is too long.
    """
    for key in entries:
        _check_key("key", key)
    if any(len(value) > VALUE_LIMIT_BYTES for value in entries.values()):
        raise StorageRefused("value is too large (max 128 KiB)")


def _check_key(what: str, key: bytes) -> None:
    if len(key) + KEY_OVERHEAD_BYTES > KEY_LIMIT_BYTES:
        raise StorageRefused(f"{what} is too long (max {KEY_LIMIT_BYTES} bytes)")


def stored_bytes(entries: Mapping[bytes, bytes]) -> int:
    """Return what entries count for against the quota of their actor."""
    return sum(map(_size, entries.keys(), entries.values()))


def _size(key: bytes, value: bytes) -> int:
    return len(key) + KEY_OVERHEAD_BYTES + len(value)


def check_quota(used_bytes: int, added_bytes: int, quota_bytes: int) -> None:
    """Refuse to let a storage grow beyond its quota; what makes it no larger is always taken.

    Raises:
        StorageRefused: there is not enough room.
    """
    left = max(quota_bytes - used_bytes, 0)
    if added_bytes > left:
        raise StorageRefused(f"not enough space left in storage: {left} bytes remaining, {added_bytes} needed")


def row_limit(limit: int | None) -> int:
    """Return how many entries a list gives: the limit is a u64, which no database takes whole."""
    return LIST_ROWS if limit is None else min(limit, 2**31 - 1)


def key_text(key: bytes) -> str:
    """Write a key for people: as text where it is printable, else its bytes as `\\xff`; `key_of_text` reads it."""
    text = key.decode(errors="surrogateescape").replace("\\", "\\\\")
    return "".join(_key_character(character) for character in text)


def _key_character(character: str) -> str:
    if (character.isprintable() and not character.isspace()) or character == " ":
        return character
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def key_of_text(text: str) -> bytes:
    """Read a key as `key_text` writes it; a backslash that begins nothing it knows stands for itself."""
    parts, rest = [], text
    while rest:
        plain, mark, rest = rest.partition("\\")
        parts.append(plain.encode(errors="replace"))
        if rest[:1] == "\\":
            parts.append(b"\\")
            rest = rest[1:]
        elif rest[:1] == "x" and _is_hex(rest[1:3]):
            parts.append(bytes.fromhex(rest[1:3]))
            rest = rest[3:]
        elif mark:
            parts.append(b"\\")
    return b"".join(parts)


def _is_hex(text: str) -> bool:
    return len(text) == 2 and all(character in "0123456789abcdefABCDEF" for character in text)
