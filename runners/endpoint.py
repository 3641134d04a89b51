"""Where a serverless pool is called, and with which headers: what is allowed (API §6). Does no I/O."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from orchestrator.addresses import literal_address, refusal

MAX_HEADERS = 16
MAX_HEADER_NAME = 128
MAX_HEADER_VALUE = 4096

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e]*")  # RFC 9110 §5.5, without obs-text
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def problem_with_url(url: str, *, private_allowed: bool) -> str | None:
    """Return why the URL cannot be called, None if it can, as far as that can be told without asking for names.

    `private_allowed` says whether addresses of this machine and of private networks may be called.
    """
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        return f"invalid url: {error}"
    if parts.scheme not in ("http", "https"):
        return "the url must be absolute, with the scheme http or https"
    if not usable or re.search(r"[\s\x00-\x1f]", url):
        return "the url is malformed"
    address = literal_address(parts.hostname or "")
    kind = None if address is None else refusal(address, private_allowed=private_allowed)
    return None if kind is None else f"the url's host is {kind}, which the engine does not call"


def problem_with_name(name: str) -> str | None:
    """Return why a pool of this name cannot have an endpoint, as a header tells it the name; None if it can."""
    if name.strip(" \t") != name or _CONTROL.search(name):
        return "the name of a serverless pool must not begin or end with a blank or contain control characters"
    return None


def problem_with_headers(headers: Mapping[str, str]) -> str | None:
    """Return why the headers cannot be sent, None if they can."""
    if len(headers) > MAX_HEADERS:
        return f"too many headers (at most {MAX_HEADERS})"
    for name, value in headers.items():
        if not 1 <= len(name) <= MAX_HEADER_NAME or not _TOKEN.fullmatch(name):
            return f"invalid header name (1 to {MAX_HEADER_NAME} characters of a token)"
        if len(value) > MAX_HEADER_VALUE or not _VALUE.fullmatch(value):
            return f"invalid value of header {name} (at most {MAX_HEADER_VALUE} printable characters)"
    return None
