"""Actors addressed by what they are: `/gateway/{name}?rvt-…` (PROTOCOL §8.3). Does no I/O."""

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from gateway.cbor import is_well_formed
from gateway.errors import (
    QueryDuplicateParam,
    QueryEmptyActorName,
    QueryGetDisallowedParams,
    QueryInvalidBase64Input,
    QueryInvalidCborInput,
    QueryInvalidParams,
    QueryInvalidPercentEncoding,
    QueryMissingPool,
    QueryPathTokenSyntax,
)

PREFIX = "rvt-"
SKIP_READY_WAIT = "rvt-skip-ready-wait"
FLAGS = {"true": True, "1": True, "false": False, "0": False}

_METHODS = ("get", "getOrCreate")
_POLICIES = ("restart", "sleep", "destroy")
_NAMES = {
    f"{PREFIX}{name}"
    for name in (
        *("namespace", "method", "pool", "runner", "key", "input"),
        *("region", "crash-policy", "token", "skip-ready-wait"),
    )
}
_NOT_WITH_GET = ("rvt-runner", "rvt-input", "rvt-region", "rvt-crash-policy")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Creation:
    """What an actor is made of if there is none. `input_bytes` is CBOR."""

    pool: str
    input_bytes: bytes | None = None
    datacenter: str | None = None
    crash_policy: str = "sleep"


@dataclass(frozen=True, slots=True)
class ActorQuery:
    """Which actor is meant; it is made if `creation` says of what. `key` is serialised."""

    namespace: str
    name: str
    key: str
    creation: Creation | None = None


@dataclass(frozen=True, slots=True)
class Parsed:
    """A query-backed path, read: what is asked, and what of the query string the actor shall see."""

    query: ActorQuery
    rest: str
    token: str | None
    skip_ready_wait: bool


def is_query_backed(query: str) -> bool:
    """Say whether a raw query string addresses the actor. Skipping the wait alone addresses nobody."""
    return PREFIX in query and any(
        name.startswith(PREFIX) and name != SKIP_READY_WAIT for name in map(_raw_name, query.split("&"))
    )


def parse(segment: str, query: str) -> Parsed:
    """Return what a raw path segment and a raw query string ask for.

    Raises:
        GatewayError: it is not allowed; each rule has a class of its own, all with status 400.
    """
    if "@" in segment:
        raise QueryPathTokenSyntax
    name = _decoded(segment, "name")
    if not name:
        raise QueryEmptyActorName
    values, rest = split(query)
    namespace, method = values.get("rvt-namespace", ""), values.get("rvt-method")
    if not namespace:
        raise QueryInvalidParams(detail="rvt-namespace is missing")
    if method not in _METHODS:
        raise QueryInvalidParams(detail="rvt-method must be get or getOrCreate")
    if any("\0" in text for text in (name, *values.values())):
        raise QueryInvalidParams(detail="nothing may contain NUL")
    creation = _creation(values) if method == "getOrCreate" else None
    if creation is None and any(one in values for one in _NOT_WITH_GET):
        raise QueryGetDisallowedParams
    key = serialise_key(values.get("rvt-key", ""))
    return Parsed(ActorQuery(namespace, name, key, creation), rest, values.get("rvt-token"), _skip(values))


def split(query: str) -> tuple[dict[str, str], str]:
    """Return the `rvt-` parameters of a raw query string, decoded, and the rest of it byte for byte.

    Raises:
        QueryInvalidParams, QueryDuplicateParam, QueryInvalidPercentEncoding: one is unknown, repeated, unreadable.
    """
    values: dict[str, str] = {}
    rest = []
    for pair in query.split("&"):
        name = _raw_name(pair)
        if not name.startswith(PREFIX):
            rest.append(pair)
            continue
        if name not in _NAMES:
            raise QueryInvalidParams(detail=f"unknown parameter: {name[:64]}")
        if name in values:
            raise QueryDuplicateParam(name=name)
        values[name] = _decoded(pair.partition("=")[2].replace("+", " "), name)
    return values, "&".join(rest)


def flag(text: str) -> bool | None:
    """Return what a flag says, None if it says nothing."""
    return FLAGS.get(text)


def serialise_key(parts: str) -> str:
    """Return the key of comma-separated parts, as actors are found by it and see it."""
    if not parts:
        return "/"
    return "/".join(part.replace("\\", "\\\\").replace("/", "\\/") or "\\0" for part in parts.split(","))


def _creation(values: dict[str, str]) -> Creation:
    if "rvt-pool" in values and "rvt-runner" in values:
        raise QueryInvalidParams(detail="rvt-pool and rvt-runner are the same parameter")
    pool = values.get("rvt-pool") or values.get("rvt-runner")
    if not pool:
        raise QueryMissingPool
    policy = values.get("rvt-crash-policy", "sleep")
    if policy not in _POLICIES:
        raise QueryInvalidParams(detail="rvt-crash-policy must be restart, sleep or destroy")
    return Creation(pool, _input(values.get("rvt-input")), values.get("rvt-region"), policy)


def _input(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not _BASE64URL.fullmatch(text):
        raise QueryInvalidBase64Input
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise QueryInvalidBase64Input from None
    if not is_well_formed(content):
        raise QueryInvalidCborInput(detail="the input is not one CBOR item")
    return content


def _skip(values: dict[str, str]) -> bool:
    wanted = flag(values.get(SKIP_READY_WAIT, "0"))
    if wanted is None:
        raise QueryInvalidParams(detail=f"{SKIP_READY_WAIT} must be true, 1, false or 0")
    return wanted


def _raw_name(pair: str) -> str:
    return pair.partition("=")[0]


def _decoded(text: str, name: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise QueryInvalidPercentEncoding(name=name)
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise QueryInvalidPercentEncoding(name=name) from None
