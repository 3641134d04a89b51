"""Bounds what a client may send to Django, which keeps a whole body before it looks at the request."""

from orchestrator.api.body import MAX_FORWARDED_BYTES
from orchestrator.errors import BodyTooLarge
from orchestrator.ids import new_id
from orchestrator.server.guard import Application, Message, Receive, Scope, Send, send_error


def bounded(application: Application) -> Application:
    """Wrap an application so that a request with a body beyond 20 MiB, announced or not, is refused with 413."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await application(scope, receive, send)
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            # To Django the client has hung up: it throws away what it kept, and answers nobody.
            return message if size <= MAX_FORWARDED_BYTES else {"type": "http.disconnect"}

        await application(scope, counted, send)
        if size > MAX_FORWARDED_BYTES:
            error = BodyTooLarge(reason=f"length limit of {MAX_FORWARDED_BYTES} bytes exceeded")
            await send_error(error, send, [(b"x-rivet-ray-id", new_id().encode())])
        return None

    return serve
