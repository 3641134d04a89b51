"""What both servers allow, and how they close a WebSocket."""

from dataclasses import dataclass

WEBSOCKET_BYTES = 40 * 1024 * 1024
"""The longest WebSocket message, either way: a client may send 32 MiB (PROTOCOL §5.5)."""
WEBSOCKET_FRAMES = 65_536
"""The frames one message may come in: empty ones take memory and never add up to a message that is too long."""
TOO_MANY_FRAMES = (1009, "ws.too_many_frames")
BODY_MARGIN_BYTES = 64 * 1024
"""How much more of a request body is read than the gateway takes, so that the gateway itself gives the answer."""
HEADER_LINE_BYTES = 128 * 1024
HEADERS_BYTES = 2 * 1024 * 1024
HEADERS = 500
"""The gateway refuses sooner, with a reason (DESIGN §11)."""
WRITE_BUFFER_BYTES = 64 * 1024
"""With more than this unsent, an application's `send` waits until the client has taken it."""
READ_BUFFER_BYTES = 256 * 1024
"""With more than this not yet received by the application, the client is not read from."""
ACCEPT_SECONDS = 120
"""How long an application may take to accept a WebSocket: it waits for its actor to wake (DESIGN §11)."""
HEAD_SECONDS = 20
"""How long the head of a request may take, from the connection or its first byte on."""
FIRST_HEAD_SECONDS = 0.5
"""How long a connection that has had no request may take to begin one when the process is told to end."""
HEAD_TIMEOUT = (
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 94\r\n\r\n"
    b'{"group":"guard","code":"request_timeout","message":"The head of the request took too long."}\n'
)
"""What a client hears who has begun one."""
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"
    b"content-type: application/json\r\ncontent-length: 102\r\n\r\n"
    b'{"group":"guard","code":"request_headers_too_large","message":"The head of the request is too long."}\n'
)
KEEP_ALIVE_SECONDS = 75
CLOSE_SECONDS = 5
"""How long a client may take to answer a WebSocket's close, and to take what was written before it hangs up."""
STOP_SECONDS = 5
"""How long requests and sockets may take to end at SIGTERM, after the callbacks of `orchestrator.lifespan`."""

READS_ON = "reads_on"
"""With this in its `websocket.close`, an application receives what the client has sent before it heard of it."""
GOING_AWAY = (1012, "ws.going_away")
CRASHED = (1011, "core.internal_error")
SILENT = (1011, "ws.ping_timeout")
VANISHED = (1006, "")
"""What an application hears of a client that hung up without a word, or does not answer pings."""


@dataclass(frozen=True, slots=True)
class Pings:
    """Each WebSocket is pinged every `interval` seconds, and closed if nothing has come of it after `timeout`."""

    interval: float
    timeout: float


_REASON_BYTES = 123  # a control frame carries 125 bytes (RFC 6455 §5.5), two of them the code


def closing(code: int | None, reason: str | None) -> tuple[int | None, str]:
    """Return the code and reason to write into a close frame.

    Codes that must not be written (RFC 6455 §7.4) become 1011, but 1005 becomes a close without a code. The reason
    is cut to what a frame can carry, between two characters.
    """
    if code == 1005:
        return None, ""
    if code is None:
        code = 1000
    elif not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        code = 1011
    return code, (reason or "").encode()[:_REASON_BYTES].decode(errors="ignore")
