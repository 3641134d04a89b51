"""The `/start` request of one runner: what is sent, how its answer is judged (PROTOCOL §7.2, §7.3). No I/O."""

import base64
import binascii
from typing import Any

from runners.errors import RunnerProtocolError
from runners.protocol import codec

BODY_EXCERPT = 512
"""Characters of an answer's body that are kept (PROTOCOL §7.3)."""


class StartFailed(Exception):
    """A `/start` request failed. `error` is the pool's error as the API shows it, `status` that of the answer."""

    def __init__(self, error: Any, status: int | None = None) -> None:
        self.error = error
        self.status = status
        super().__init__(str(error))


def start_url(url: str) -> str:
    """Return the address of the start request of an endpoint."""
    return url.rstrip("/") + "/start"


def start_headers(
    configured: dict[str, str], *, endpoint: str, slots: int, pool: str, namespace: str, token: str, version: str
) -> dict[str, str]:
    """Return the headers of a start request; the engine's own win over configured ones."""
    headers = {name.lower(): value for name, value in configured.items()}
    headers |= {
        "x-rivet-endpoint": endpoint + "/",
        "x-rivet-total-slots": str(slots),
        "x-rivet-runner-name": pool,
        "x-rivet-namespace-name": namespace,
        "x-rivet-namespace-id": namespace,
        "accept": "text/event-stream",
        "accept-encoding": "identity",  # a compressed stream could grow without bound here
        "user-agent": f"RivetEngine/{version}",
    }
    return headers | {"x-rivet-token": token} if token else headers


def check_answer(status: int, content_type: str, body: str) -> None:
    """Accept an answer that is an event stream.

    Raises:
        StartFailed: it is not.
    """
    if status != 200:
        raise StartFailed({"serverless_http_error": {"status_code": status, "body": body[:BODY_EXCERPT]}}, status)
    if content_type.partition(";")[0].strip().lower() != "text/event-stream":
        message = f"expected Content-Type header to be text/event-stream, received {content_type or 'none'}"
        raise StartFailed({"serverless_connection_error": {"message": message}}, status)


def read_init(data: str) -> str:
    """Return the runner id of an init payload, as the stream carries it.

    Raises:
        StartFailed: it is not base64, or not an init payload.
    """
    try:
        payload = base64.b64decode(data.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise invalid_payload("invalid base64 message", data) from None
    try:
        return codec.decode_serverless_init(payload).runner_id
    except RunnerProtocolError:
        raise invalid_payload("invalid payload", data) from None


def connection_error(error: BaseException) -> StartFailed:
    """Return the failure for an endpoint that could not be reached or hung up."""
    message = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return StartFailed({"serverless_connection_error": {"message": message[:BODY_EXCERPT]}})


def invalid_payload(message: str, data: str) -> StartFailed:
    """Return the failure for a stream whose first message is not what it should be."""
    return StartFailed(
        {"serverless_invalid_sse_payload": {"message": message, "raw_payload": data[:BODY_EXCERPT]}}, 200
    )
