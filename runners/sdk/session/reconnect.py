"""How a runner finds the engine again: address, offers, pauses, and when to stop trying (PROTOCOL §2)."""

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

PROTOCOL_VERSION = 7
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
JITTER = 0.25  # so that the runners of an engine that restarts do not return in step

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110 §5.6.2: what a subprotocol's name may hold


def engine_endpoint(given: str | None, environment: Mapping[str, str]) -> str:
    """Return the engine's HTTP endpoint: the one given, else that of TORPOR_ENDPOINT, else one on this machine."""
    return given or environment.get("TORPOR_ENDPOINT") or "http://127.0.0.1:6420"


def connect_url(endpoint: str, *, namespace: str, key: str) -> str:
    """Return the WebSocket URL of an engine's HTTP endpoint (PROTOCOL §2.1).

    Raises ValueError unless the endpoint is an absolute http, https, ws or wss URL.
    """
    parts = urlsplit(endpoint)
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise ValueError(f"the endpoint must be an absolute http or https URL, not {endpoint!r}")
    parameters = {"protocol_version": PROTOCOL_VERSION, "namespace": namespace, "runner_key": key}
    query = urlencode(parameters, quote_via=quote)
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}/runners/connect?{query}"


def subprotocols(token: str | None) -> list[str]:
    """Return the subprotocols to offer, in order. Raises ValueError for a token no header could carry."""
    if token is None:
        return ["rivet"]
    if not _TOKEN.fullmatch(token):
        raise ValueError("the token may hold only letters, digits and !#$%&'*+.^_`|~-")
    return ["rivet", f"rivet_token.{token}"]


def pause_s(attempt: int, jitter: float) -> float:
    """Return the seconds to wait before connecting again, after so many failures; jitter is in [0, 1)."""
    doubled: float = FIRST_PAUSE_S * 2 ** min(attempt, 10)
    return min(doubled, LONGEST_PAUSE_S) * (1 + JITTER * jitter)


def is_eviction(close_reason: str) -> bool:
    """Return whether this reason, alone of all, means: do not come back (PROTOCOL §2.4)."""
    return close_reason.partition("#")[0] == "ws.eviction"
