"""A small HTTP server in a thread: it gives one reply to everybody and remembers who asked."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """A status and a body: bytes as they are, anything else as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """A GET that came in; header names in lower case."""

    path: str
    headers: Mapping[str, str]


@dataclass
class Endpoint:
    """A running server."""

    url: str
    calls: list[Call] = field(default_factory=list)


@contextmanager
def http_server(reply: Reply) -> Iterator[Endpoint]:
    """Run a server on loopback."""
    content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            endpoint.calls.append(Call(self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield endpoint
        finally:
            server.shutdown()
            thread.join()
