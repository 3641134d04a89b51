"""A chat room: whoever is in it hears what anybody says, also after the room has slept.

python -m runners.sdk examples.chat.app
"""

from contextlib import suppress
from datetime import timedelta

from runners.sdk import Actor, Context, Request, Response, WebSocket, WebSocketClosed

REMEMBERED = 20


class Chat(Actor):
    """One room. It sleeps when nobody has said anything for a while; its WebSockets stay open meanwhile."""

    hibernate_websockets = True
    sleep_after = timedelta(seconds=30)
    initial_state = {"lines": []}

    async def fetch(self, ctx: Context, request: Request) -> Response:
        """Show the last lines, and who is here."""
        here = [socket.state["name"] for socket in ctx.sockets]
        return Response.json({"lines": ctx.state["lines"], "here": here, "generation": ctx.generation})

    async def websocket(self, ctx: Context, socket: WebSocket) -> None:
        """Serve one guest; after a sleep of the room this begins anew, with `restored`."""
        if not socket.restored:
            socket.state["name"] = socket.request.params.get("name", "somebody")
            for line in ctx.state["lines"]:
                await socket.send(line)
            await self.say(ctx, f"{socket.state['name']} has come")
        async for message in socket:
            await self.say(ctx, f"{socket.state['name']}: {message!s}")
        await self.say(ctx, f"{socket.state['name']} has left")

    async def say(self, ctx: Context, line: str) -> None:
        """Tell everybody, and remember."""
        ctx.state["lines"] = [*ctx.state["lines"], line][-REMEMBERED:]
        for socket in ctx.sockets:
            with suppress(WebSocketClosed):
                await socket.send(line)


actors = {"chat": Chat}
