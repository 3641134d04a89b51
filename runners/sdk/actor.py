"""How an actor is written, and the table of those a runner can host."""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from runners.sdk.context import Context
from runners.sdk.http import Answer, Request, Response
from runners.sdk.websocket import WebSocket


class Actor:
    """An actor: subclass it and override what it does.

    One object lives from a start to the stop that follows it (one generation) and is made without arguments.
    What must outlast a sleep belongs into `ctx.kv` or a store of your own. Requests to one actor run
    concurrently in one event loop: nothing here may block it (`asyncio.to_thread` carries what must).
    """

    async def on_start(self, ctx: Context) -> None:
        """Prepare. No request arrives before this has returned. The engine allows 30 s; raising ends this life."""

    async def on_stop(self, ctx: Context) -> None:
        """Say goodbye: requests are finished. Called also when on_start has failed."""

    async def fetch(self, ctx: Context, request: Request) -> Answer:
        """Answer a request. Raising answers 500. A Response may be of 20 MiB, a StreamingResponse of any size."""
        return Response.text("Not Found\n", status=404)

    async def websocket(self, ctx: Context, socket: WebSocket) -> None:
        """Serve an accepted WebSocket; returning closes it, raising closes it with 1011.

        An actor that does not override this refuses WebSockets.
        """
        raise NotImplementedError


FetchFunction: TypeAlias = Callable[[Context, Request], Awaitable[Answer]]
ActorLike: TypeAlias = type[Actor] | FetchFunction


class FunctionActor(Actor):
    """An actor that is a plain async function from a request to its answer."""

    def __init__(self, fetch: FetchFunction) -> None:
        self._fetch = fetch

    async def fetch(self, ctx: Context, request: Request) -> Answer:
        """Answer with the function."""
        return await self._fetch(ctx, request)


class Registry:
    """Which actors there are: name -> Actor subclass, or an async function like `Actor.fetch`."""

    def __init__(self, actors: "Mapping[str, ActorLike] | Registry") -> None:
        self._actors: Mapping[str, ActorLike] = actors._actors if isinstance(actors, Registry) else dict(actors)
        for name, actor in self._actors.items():
            if isinstance(actor, type) and not issubclass(actor, Actor):
                raise TypeError(f"{name!r} must be a subclass of Actor or an async function, not {actor!r}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in the order given."""
        return tuple(self._actors)

    def __contains__(self, name: str) -> bool:
        return name in self._actors

    def create(self, name: str) -> Actor:
        """Return a new actor of this name, which must be in the table. Raises whatever its constructor raises."""
        actor = self._actors[name]
        return actor() if isinstance(actor, type) else FunctionActor(actor)
