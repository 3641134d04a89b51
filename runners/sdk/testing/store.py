"""The stores of actors in memory, with the limits and texts of an engine (PROTOCOL §6)."""

from collections.abc import Sequence

from runners.protocol.messages import (
    KvDeleteRangeRequest,
    KvDeleteRequest,
    KvDeleteResponse,
    KvDropRequest,
    KvDropResponse,
    KvErrorResponse,
    KvGetRequest,
    KvGetResponse,
    KvListAllQuery,
    KvListPrefixQuery,
    KvListRequest,
    KvListResponse,
    KvMetadata,
    KvPutRequest,
    KvPutResponse,
    KvRequestData,
    KvResponseData,
)

MAX_KEY_BYTES = 2046
MAX_VALUE_BYTES = 128 * 1024
MAX_ENTRIES = 128
MAX_PUT_BYTES = 976 * 1024
DEFAULT_LIMIT = 16_384
METADATA = KvMetadata(b"local", 0)


class Refused(Exception):
    """An engine would refuse this."""


class MemoryStore:
    """The store of one actor."""

    def __init__(self) -> None:
        self.entries: dict[bytes, bytes] = {}

    def answer(self, request: KvRequestData) -> KvResponseData:
        """Do what is asked and return the answer."""
        try:
            return self._answer(request)
        except Refused as refusal:
            return KvErrorResponse(str(refusal))

    def _answer(self, request: KvRequestData) -> KvResponseData:
        match request:
            case KvGetRequest(keys):
                _check_keys(keys)
                return KvGetResponse(*self._rows([key for key in dict.fromkeys(keys) if key in self.entries]))
            case KvListRequest():
                return KvListResponse(*self._rows(self._selected(request)))
            case KvPutRequest(keys, values):
                _check_put(keys, values)
                self.entries |= dict(zip(keys, values, strict=True))
                return KvPutResponse()
            case KvDeleteRequest(keys):
                _check_keys(keys)
                self._remove(keys)
                return KvDeleteResponse()
            case KvDeleteRangeRequest(start, end):
                self._remove([key for key in self.entries if start <= key < end])
                return KvDeleteResponse()
            case KvDropRequest():
                self.entries.clear()
                return KvDropResponse()

    def _selected(self, request: KvListRequest) -> list[bytes]:
        match request.query:
            case KvListAllQuery():
                keys = sorted(self.entries)
            case KvListPrefixQuery(prefix):
                keys = sorted(key for key in self.entries if key.startswith(prefix))
            case query:
                keys = sorted(key for key in self.entries if query.start <= key <= query.end)
                keys = [key for key in keys if not (query.exclusive and key == query.end)]
        if request.reverse:
            keys.reverse()
        return keys[: DEFAULT_LIMIT if request.limit is None else request.limit]

    def _rows(self, keys: list[bytes]) -> tuple[list[bytes], list[bytes], list[KvMetadata]]:
        return keys, [self.entries[key] for key in keys], [METADATA] * len(keys)

    def _remove(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self.entries.pop(key, None)


def _check_keys(keys: Sequence[bytes]) -> None:
    if len(keys) > MAX_ENTRIES:
        raise Refused(f"a maximum of {MAX_ENTRIES} keys is allowed")
    _check_sizes(keys)


def _check_sizes(keys: Sequence[bytes]) -> None:
    if any(len(key) > MAX_KEY_BYTES for key in keys):
        raise Refused("key is too long (max 2048 bytes)")


def _check_put(keys: Sequence[bytes], values: Sequence[bytes]) -> None:
    if len(keys) != len(values):
        raise Refused("Keys list length != values list length")
    if len(keys) > MAX_ENTRIES:
        raise Refused(f"A maximum of {MAX_ENTRIES} key-value entries is allowed")
    if sum(len(key) + 2 for key in keys) + sum(map(len, values)) > MAX_PUT_BYTES:
        raise Refused("total payload is too large (max 976 KiB)")
    _check_sizes(keys)
    if any(len(value) > MAX_VALUE_BYTES for value in values):
        raise Refused("value is too large (max 128 KiB)")
