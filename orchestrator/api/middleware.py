"""Answers every request for the management API: which path, which method, and the headers (API §1.1, §1.2).

It comes first and Django's own middleware, made for the admin's pages, is not asked for API requests. Views run
in a few threads that live as long as the process and so keep their database connections; Django by itself would
give each request a thread, and a connection, of its own.
"""

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.db import close_old_connections, connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, ResolverMatch, resolve
from django.utils.cache import patch_vary_headers

from orchestrator import logs
from orchestrator.api.answers import error_answer
from orchestrator.db import kept_connection
from orchestrator.errors import MethodNotAllowed, PathNotFound
from orchestrator.ids import new_id

THREADS = 32
"""Requests answered at the same time by one process; also its connections to the database at the most."""
RAY_ID = "x-rivet-ray-id"

_DJANGO_PATHS = ("/admin/", "/console/", f"/{settings.STATIC_URL.strip('/')}/")
_UNESCAPED = "/:@!$&'()*+,;=~"  # what a path may hold as it is (RFC 3986 §3.3)
_VARY = ("origin", "access-control-request-method", "access-control-request-headers")

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="api")


class ApiMiddleware:
    """Takes the requests for the API and passes the others on; every answer gets a ray id."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Return the answer, or a coroutine that does, as Django asks for."""
        if self._is_async:
            return self._answer_later(request)
        if not _is_ours(request):
            return _with_ray_id(self._get_response(request), new_id())
        return answer(request)

    async def _answer_later(self, request: HttpRequest) -> HttpResponseBase:
        if not _is_ours(request):
            try:
                return _with_ray_id(await self._get_response(request), new_id())
            finally:  # in the thread that Django gave the request, and its connection ends with it
                await sync_to_async(connections.close_all)()
        return await sync_to_async(_answer_in_thread, thread_sensitive=False, executor=_threads)(request)


def answer(request: HttpRequest) -> HttpResponseBase:
    """Return the answer of the API to a request, whatever comes."""
    ray_id = request.ray_id = new_id()  # type: ignore[attr-defined]
    token = logs.ray_id.set(ray_id)
    try:
        return _answer(request, ray_id)
    finally:
        logs.ray_id.reset(token)


def _answer(request: HttpRequest, ray_id: str) -> HttpResponseBase:
    try:
        match: ResolverMatch | None = resolve(_encoded_path(request))
    except Resolver404:
        match = None
    try:
        response = _answer_unknown(request) if match is None else _answer_known(request, match)
    except Exception as error:
        response = error_answer(request, error)
    if isinstance(response, HttpResponse):
        response.headers.setdefault("content-length", str(len(response.content)))
    return _with_ray_id(_with_cors(request, response, known=match is not None), ray_id)


def _answer_in_thread(request: HttpRequest) -> HttpResponseBase:
    close_old_connections()  # one that broke in an earlier request
    with kept_connection():
        return answer(request)


def _is_ours(request: HttpRequest) -> bool:
    return not request.path_info.startswith(_DJANGO_PATHS)


def _encoded_path(request: HttpRequest) -> str:
    """Return the path as it came, still percent-encoded: a slash inside a name is not a separator."""
    raw: bytes | None = getattr(request, "scope", {}).get("raw_path")
    if raw is None:
        return quote(request.path_info, safe=_UNESCAPED)
    return raw.decode("ascii", errors="replace")


def _answer_unknown(request: HttpRequest) -> HttpResponseBase:
    return HttpResponse() if request.method == "OPTIONS" else error_answer(request, PathNotFound())


def _answer_known(request: HttpRequest, match: ResolverMatch) -> HttpResponseBase:
    method = request.method
    if method == "HEAD":
        request.method = "GET"
    response: HttpResponseBase = match.func(request, *match.args, **match.kwargs)
    if response.status_code == 405:
        allowed = response.headers["allow"]
        response = HttpResponse() if method == "OPTIONS" else error_answer(request, MethodNotAllowed())
        response.headers["allow"] = _with_head(allowed)
    if method == "HEAD" and isinstance(response, HttpResponse):
        response.headers["content-length"] = str(len(response.content))
        response.content = b""
    return response


def _with_head(allowed: str) -> str:
    methods = {method.strip() for method in allowed.split(",")}
    return ",".join(sorted(methods | {"HEAD"} if "GET" in methods else methods))


def _with_ray_id(response: HttpResponseBase, ray_id: str) -> HttpResponseBase:
    response.headers[RAY_ID] = ray_id
    return response


def _with_cors(request: HttpRequest, response: HttpResponseBase, *, known: bool) -> HttpResponseBase:
    """Let every origin in: what protects the API is its token, never a cookie."""
    headers = response.headers
    if not known:
        for what in ("allow-origin", "allow-methods", "allow-headers", "expose-headers"):
            headers[f"access-control-{what}"] = "*"
        return response
    mirrored = {
        "allow-origin": "origin",
        "allow-methods": "access-control-request-method",
        "allow-headers": "access-control-request-headers",
    }
    for what, source in mirrored.items():
        if source in request.headers:
            headers[f"access-control-{what}"] = request.headers[source]
    headers["access-control-allow-credentials"] = "true"
    headers["access-control-expose-headers"] = RAY_ID
    patch_vary_headers(response, _VARY)
    return response
