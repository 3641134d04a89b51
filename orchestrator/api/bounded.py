"""Bounds what a client may send to Django, which keeps a whole body before it looks at the request."""

from orchestrator.api.body import MAX_BODY_BYTES, MAX_FORWARDED_BYTES
from orchestrator.errors import BodyTooLarge
from orchestrator.ids import new_id
from orchestrator.server.guard import Application, Message, Receive, Scope, Send, send_error


def bounded(application: Application) -> Application:
    """Wrap an application so that a request with a body beyond 20 MiB, announced or not, is refused with 413.

    Of one beyond 2 MiB, the application sees no more than tells it so.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await application(scope, receive, send)
        size, longest = 0, MAX_BODY_BYTES + 1

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            part = message.get("body", b"")
            read, size = size, size + len(part)
            if size > MAX_FORWARDED_BYTES:
                # To Django the client has hung up: it throws away what it kept, and answers nobody.
                return {"type": "http.disconnect"}
            return message if size <= MAX_BODY_BYTES else {**message, "body": part[: max(longest - read, 0)]}

        await application(scope, counted, send)
        if size > MAX_FORWARDED_BYTES:
            error = BodyTooLarge(reason=f"length limit of {MAX_FORWARDED_BYTES} bytes exceeded")
            await send_error(error, send, [(b"x-rivet-ray-id", new_id().encode())])
        return None

    return serve
