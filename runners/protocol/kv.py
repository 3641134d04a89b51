"""An actor's key-value store on the wire: requests of the runner, answers of the engine (PROTOCOL §3.1, §6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runners.protocol.bare import BOOL, DATA, I64, MAX_ITEMS, TEXT, U64, Codec, optional, record, sequence, union


@dataclass(frozen=True, slots=True)
class KvListAllQuery:
    """Every key."""


@dataclass(frozen=True, slots=True)
class KvListRangeQuery:
    """The keys from `start` to `end`, the latter left out if `exclusive`."""

    start: bytes
    end: bytes
    exclusive: bool


@dataclass(frozen=True, slots=True)
class KvListPrefixQuery:
    """The keys that begin with `key`, itself included."""

    key: bytes


KvListQuery: TypeAlias = KvListAllQuery | KvListRangeQuery | KvListPrefixQuery


@dataclass(frozen=True, slots=True)
class KvGetRequest:
    """Read these keys."""

    keys: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class KvListRequest:
    """Read what the query selects; `limit` is a u64."""

    query: KvListQuery
    reverse: bool | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class KvPutRequest:
    """Write `values[i]` under `keys[i]`. That the lists are equally long is not checked here."""

    keys: Sequence[bytes]
    values: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class KvDeleteRequest:
    """Remove these keys."""

    keys: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class KvDeleteRangeRequest:
    """Remove the keys from `start` up to but without `end`. Only version 7 has it."""

    start: bytes
    end: bytes


@dataclass(frozen=True, slots=True)
class KvDropRequest:
    """Remove everything of the actor."""


KvRequestData: TypeAlias = (
    KvGetRequest | KvListRequest | KvPutRequest | KvDeleteRequest | KvDeleteRangeRequest | KvDropRequest
)


@dataclass(frozen=True, slots=True)
class KvMetadata:
    """Who wrote a value (the engine's version in ASCII) and when."""

    version: bytes
    update_ts_ms: int


@dataclass(frozen=True, slots=True)
class KvErrorResponse:
    """The request was refused."""

    message: str


@dataclass(frozen=True, slots=True)
class KvGetResponse:
    """The keys that exist; the three lists are equally long."""

    keys: Sequence[bytes]
    values: Sequence[bytes]
    metadata: Sequence[KvMetadata]


@dataclass(frozen=True, slots=True)
class KvListResponse:
    """The keys that were selected, in order; the three lists are equally long."""

    keys: Sequence[bytes]
    values: Sequence[bytes]
    metadata: Sequence[KvMetadata]


@dataclass(frozen=True, slots=True)
class KvPutResponse:
    """The values are written."""


@dataclass(frozen=True, slots=True)
class KvDeleteResponse:
    """The keys, or the range, are removed."""


@dataclass(frozen=True, slots=True)
class KvDropResponse:
    """Everything is removed."""


KvResponseData: TypeAlias = (
    KvErrorResponse | KvGetResponse | KvListResponse | KvPutResponse | KvDeleteResponse | KvDropResponse
)

_ASKED = sequence(DATA, MAX_ITEMS)
_KEYS = sequence(DATA)
_VALUES = sequence(DATA)
_QUERY: Codec[KvListQuery] = union(
    "KvListQuery",
    record(KvListAllQuery),
    record(KvListRangeQuery, DATA, DATA, BOOL),
    record(KvListPrefixQuery, DATA),
)
_METADATA = sequence(record(KvMetadata, DATA, I64))


def request(version: int) -> Codec[KvRequestData]:
    """Return the codec of a request's data: version 7 put the range before the drop (PROTOCOL §3.2)."""
    return union(
        "KvRequestData",
        record(KvGetRequest, _ASKED),
        record(KvListRequest, _QUERY, optional(BOOL), optional(U64)),
        record(KvPutRequest, _ASKED, _ASKED),
        record(KvDeleteRequest, _ASKED),
        *([record(KvDeleteRangeRequest, DATA, DATA)] if version >= 7 else []),
        record(KvDropRequest),
    )


RESPONSE: Codec[KvResponseData] = union(
    "KvResponseData",
    record(KvErrorResponse, TEXT),
    record(KvGetResponse, _KEYS, _VALUES, _METADATA),
    record(KvListResponse, _KEYS, _VALUES, _METADATA),
    record(KvPutResponse),
    record(KvDeleteResponse),
    record(KvDropResponse),
)
