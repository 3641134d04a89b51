"""How much one client and one actor may have at a time, and how long a head may be. Does no I/O, has no clock.

Every web process counts for itself. A limit of 0 is none.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from gateway.errors import ActorBusy, HeadersTooLarge, RateLimited

ADDRESSES = 100_000
"""Addresses whose rate is known at a time; the one not heard of for longest is forgotten first."""
_SITE_BITS = 64  # what one IPv6 customer has at the least

Network = IPv4Network | IPv6Network


def check_headers(headers: Sequence[tuple[bytes, bytes]], most: int, most_bytes: int) -> None:
    """Refuse a head with more headers than `most`, or a header (name and value) longer than `most_bytes`.

    Raises:
        HeadersTooLarge: it says which limit it is.
    """
    if len(headers) > most:
        raise HeadersTooLarge(headers=len(headers), limit=most)
    for name, value in headers:
        if len(name) + len(value) > most_bytes:
            raise HeadersTooLarge(header=name[:64].decode("latin-1"), limit_bytes=most_bytes)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Return comma-separated addresses and networks; ValueError for anything else."""
    return tuple(ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def client_address(peer: str, forwarded: Iterable[bytes], trusted: Sequence[Network]) -> str:
    """Return whose request it is: the peer's, or if that is a trusted proxy, the one's it names.

    `forwarded` are the values of `X-Forwarded-For`. They are read from the end, over further trusted proxies: what
    stands before the last address that is not trusted, anybody may have written.
    """
    if not trusted or not _is_within(peer, trusted):
        return peer
    named = [part.strip() for value in forwarded for part in value.decode("latin-1").split(",")]
    for address in reversed(named):
        if not _is_address(address):
            return peer
        peer = address
        if not _is_within(address, trusted):
            return address
    return peer


def address_key(address: str) -> str:
    """Return under what an address is counted: an IPv6 network of one site counts as one."""
    if ":" not in address or not _is_address(address):
        return address
    return str(ip_network(f"{address}/{_SITE_BITS}", strict=False))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_within(text: str, networks: Sequence[Network]) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


@dataclass(slots=True)
class _Use:
    """What one address has: requests under way, and how many more it may begin (as of `at`, in seconds)."""

    at: float
    allowance: float
    under_way: int = 0


@dataclass(slots=True)
class ClientLimits:
    """Requests per window, and at a time, by client address. The rate is a bucket that fills evenly."""

    requests: int
    window_seconds: float
    at_a_time: int
    _uses: OrderedDict[str, _Use] = field(default_factory=OrderedDict)

    def enter(self, address: str, now: float, *, method: str, path: str) -> None:
        """Count a request in; `leave` it when it is over. `now` is in seconds and never goes back.

        Raises:
            RateLimited: it is one too many, and not counted.
        """
        use = self._uses.get(address)
        if use is None:
            use = self._uses[address] = _Use(now, self.requests)
            self._forget_some()
        else:
            self._uses.move_to_end(address)
        if self.requests:
            refill = (now - use.at) * self.requests / self.window_seconds
            use.allowance = min(use.allowance + refill, self.requests)
        use.at = now
        if (self.requests and use.allowance < 1) or (self.at_a_time and use.under_way >= self.at_a_time):
            raise RateLimited(method=method, path=path[:256], ip=address)
        use.allowance -= 1
        use.under_way += 1

    def leave(self, address: str) -> None:
        """Count a request out that `enter` let in."""
        use = self._uses[address]
        use.under_way -= 1
        if not use.under_way and not self.requests:
            del self._uses[address]

    def _forget_some(self) -> None:
        if len(self._uses) > ADDRESSES:
            for address, use in list(self._uses.items())[: ADDRESSES // 100]:
                if not use.under_way:
                    del self._uses[address]


@dataclass(slots=True)
class ActorLimit:
    """Requests, or WebSockets, that one actor has at a time."""

    what: str
    _counts: dict[str, int] = field(default_factory=dict)

    def enter(self, actor_id: str, most: int) -> None:
        """Count one in; `leave` it when it is over.

        Raises:
            ActorBusy: it is one too many, and not counted.
        """
        count = self._counts.get(actor_id, 0)
        if most and count >= most:
            raise ActorBusy(actor_id=actor_id, limit=most, of=self.what)
        self._counts[actor_id] = count + 1

    def leave(self, actor_id: str) -> None:
        """Count one out that `enter` let in."""
        count = self._counts[actor_id] - 1
        if count:
            self._counts[actor_id] = count
        else:
            del self._counts[actor_id]
