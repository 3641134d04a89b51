"""HTTP to addresses that somebody else has chosen: endpoints of serverless pools (DESIGN §11, Endpoints).

A host is resolved once per request, every address it has is checked, and the connection is made to one of those
very addresses, so that a name cannot point elsewhere a moment later. `Host` and the certificate TLS asks for are
still those of the name.
"""

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from socket import IPPROTO_TCP, SOCK_STREAM, gaierror, getaddrinfo

import httpx
from django.conf import settings

from orchestrator.addresses import Address, literal_address, refusal

CONNECT_SECONDS = 10.0
RESOLVE_SECONDS = 10.0
_RESOLVERS = 64  # a name server that is slow must not keep the others waiting

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]

_resolvers = ThreadPoolExecutor(_RESOLVERS, thread_name_prefix="resolve")


class AddressRefused(httpx.TransportError):
    """The engine does not call this address."""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of a host, the preferred ones first.

    Raises:
        httpx.ConnectError: it has none, or that cannot be found out in time.
    """
    lookup = asyncio.get_running_loop().run_in_executor(_resolvers, _look_up, host, port)
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            return await lookup
    except TimeoutError:
        raise httpx.ConnectError(f"the name {host} could not be resolved in time") from None
    except (gaierror, UnicodeError):
        raise httpx.ConnectError(f"the name {host} could not be resolved") from None


def _look_up(host: str, port: int) -> list[Address]:
    found = getaddrinfo(host, port, type=SOCK_STREAM, proto=IPPROTO_TCP)
    return [ipaddress.ip_address(str(where[0]).partition("%")[0]) for *_, where in found]


class CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to checked addresses only."""

    def __init__(self, resolver: Resolver = resolve) -> None:
        self._resolve = resolver
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._inner = httpx.AsyncHTTPTransport(verify=_tls(), limits=limits, trust_env=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.UnsupportedProtocol: a redirect leads away from HTTP.
            AddressRefused: an address of its host may not be called; nothing was sent.
            httpx.TransportError: it could not be sent, or was not answered.
        """
        if request.url.scheme not in ("http", "https"):
            raise httpx.UnsupportedProtocol(f"the scheme {request.url.scheme!r} is not called")
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        addresses = await self._checked(host, port)
        for address in addresses[:-1]:
            try:
                return await self._send(request, address)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._send(request, addresses[-1])

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def _checked(self, host: str, port: int) -> Sequence[Address]:
        literal = literal_address(host)
        addresses = await self._resolve(host, port) if literal is None else [literal]
        if not addresses:
            raise httpx.ConnectError(f"the name {host} has no address")
        for address in addresses:
            kind = refusal(address, private_allowed=settings.ENV.private_endpoints_allowed)
            if kind is not None:
                raise AddressRefused(f"{host} is {kind}, which the engine does not call")
        return addresses

    async def _send(self, request: httpx.Request, address: Address) -> httpx.Response:
        there = httpx.Request(
            request.method,
            request.url.copy_with(host=str(address)),
            headers=request.headers,  # with the Host of the name
            stream=request.stream,
            extensions=request.extensions | {"sni_hostname": request.url.host},
        )
        return await self._inner.handle_async_request(there)


def make_client(resolver: Resolver = resolve) -> httpx.AsyncClient:
    """Return a client that follows no redirect, keeps no cookie and, once connected, waits without a limit.

    Ask for `identity` and read what comes raw, or a few compressed bytes become many.
    """
    nowhere = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx.AsyncClient(
        transport=CheckedTransport(resolver),
        timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
        cookies=nowhere,
        follow_redirects=False,
        trust_env=False,
    )


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)
