"""The console's WebSocket: sends the pieces of one page as they change, to staff."""

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

from channels.auth import AuthMiddlewareStack

from console.permission import may_watch
from console.watcher import Viewer, watching
from orchestrator.consumers import LeanConsumer

LIFE_SECONDS = 600.0
"""A socket is closed after this, and the page opens another: whoever is no longer staff is found out."""
NOT_ALLOWED = 4403
UNKNOWN = 4404


class ConsoleSocket(LeanConsumer):
    """One viewer of one page, named by the parameters `kind` and `id`."""

    async def serve(self) -> None:
        """Accept staff and keep them informed until they leave."""
        await self.receive()
        await self.send_message({"type": "websocket.accept"})
        if not (_is_own_page(self.scope) and may_watch(self.scope["user"])):
            return await self.send_message({"type": "websocket.close", "code": NOT_ALLOWED})
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        subject = (query.get("kind", [""])[0], query.get("id", [""])[0])
        with watching(subject) as viewer:
            if viewer is None:
                return await self.send_message({"type": "websocket.close", "code": UNKNOWN})
            await self._inform(viewer)
        return None

    async def _inform(self, viewer: Viewer) -> None:
        sender = asyncio.create_task(self._send(viewer))
        try:
            async with asyncio.timeout(LIFE_SECONDS):
                while (await self.receive())["type"] != "websocket.disconnect":
                    pass
        except TimeoutError:
            await self.send_message({"type": "websocket.close", "code": 1001})
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _send(self, viewer: Viewer) -> None:
        while True:
            await self.send_message({"type": "websocket.send", "text": await viewer.next()})


def _is_own_page(scope: dict[str, Any]) -> bool:
    """Say whether a page of this very site asks: a browser sends its cookies from any other just as well."""
    headers = dict(scope["headers"])
    origin = urlsplit(headers.get(b"origin", b"").decode("latin-1")).netloc
    return bool(origin) and origin == headers.get(b"host", b"").decode("latin-1")


console_socket = AuthMiddlewareStack(ConsoleSocket.as_asgi())
