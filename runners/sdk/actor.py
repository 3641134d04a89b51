"""How an actor is written, and the table of those a runner can host."""

import inspect
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, TypeAlias, TypeVar

from runners.sdk.context import Context
from runners.sdk.home import Kind
from runners.sdk.http import Answer, Request, Response
from runners.sdk.websocket import WebSocket

F = TypeVar("F", bound=Callable[..., Awaitable[None]])


class Actor:
    """An actor: subclass it and override what it does.

    One object lives from a start to the stop that follows it (one generation) and is made without arguments.
    What must outlast a sleep belongs into `ctx.state`, `ctx.kv` or a store of your own. Requests to one actor run
    concurrently in one event loop: nothing here may block it (`asyncio.to_thread` carries what must).
    """

    initial_state: ClassVar[Mapping[str, Any] | None] = None
    """JSON values that `ctx.state` begins with; None: there is no `ctx.state`."""

    sleep_after: ClassVar[timedelta | None] = None
    """How long without requests, open sockets, scheduled calls and `ctx.keep_awake()` until it falls asleep."""

    hibernate_websockets: ClassVar[bool] = False
    """Whether clients' WebSockets stay open while the actor sleeps. They do not keep it awake, then."""

    async def on_start(self, ctx: Context) -> None:
        """Prepare. No request arrives before this has returned. The engine allows 30 s; raising ends this life."""

    async def on_stop(self, ctx: Context) -> None:
        """Say goodbye: requests are finished. Called also when on_start has failed."""

    async def fetch(self, ctx: Context, request: Request) -> Answer:
        """Answer a request. Raising answers 500. A Response may be of 20 MiB, a StreamingResponse of any size."""
        return Response.text("Not Found\n", status=404)

    async def websocket(self, ctx: Context, socket: WebSocket) -> None:
        """Serve an accepted WebSocket; returning closes it, raising closes it with 1011.

        One that hibernates is served anew in each life of the actor, with `socket.restored`, until it is closed.
        An actor that does not override this refuses WebSockets.
        """
        raise NotImplementedError

    def can_hibernate(self, request: Request) -> bool:
        """Say of a single WebSocket whether it hibernates; without this `hibernate_websockets` says it of all."""
        return self.hibernate_websockets


def scheduled(method: F) -> F:
    """Mark a method `async def method(self, ctx, payload)` of an actor as one that `ctx.schedule` may call."""
    method._torpor_scheduled = True  # type: ignore[attr-defined]
    return method


def kind_of(actor: type[Actor]) -> Kind:
    """Return what the class says of its actors."""
    methods = frozenset(name for name in dir(actor) if hasattr(getattr(actor, name), "_torpor_scheduled"))
    hibernates = actor.hibernate_websockets or actor.can_hibernate is not Actor.can_hibernate
    keeps_records = actor.initial_state is not None or hibernates or bool(methods)
    return Kind(actor.initial_state, actor.sleep_after, methods, keeps_records)


FetchFunction: TypeAlias = Callable[[Context, Request], Awaitable[Answer]]
ActorLike: TypeAlias = type[Actor] | FetchFunction


class FunctionActor(Actor):
    """An actor that is a plain async function from a request to its answer."""

    def __init__(self, fetch: FetchFunction) -> None:
        self._fetch = fetch

    async def fetch(self, ctx: Context, request: Request) -> Answer:
        """Answer with the function."""
        return await self._fetch(ctx, request)


def _check(name: str, actor: object) -> None:
    """Refuse what can never be an actor now, and not at its first request. Raises TypeError."""
    if isinstance(actor, Actor):
        raise TypeError(
            f"{name!r} must be the class {type(actor).__name__} itself: each life has an object of its own"
        )
    if not callable(actor) or (isinstance(actor, type) and not issubclass(actor, Actor)):
        raise TypeError(f"{name!r} must be a subclass of Actor or an async function, not {actor!r}")
    if isinstance(actor, type):
        try:
            inspect.signature(actor).bind()
        except TypeError as error:
            raise TypeError(f"{name!r} must be made without arguments: {error}") from None


class Registry:
    """Which actors there are: name -> Actor subclass, or an async function like `Actor.fetch`."""

    def __init__(self, actors: "Mapping[str, ActorLike] | Registry") -> None:
        self._actors: Mapping[str, ActorLike] = actors._actors if isinstance(actors, Registry) else dict(actors)
        for name, actor in self._actors.items():
            _check(name, actor)
        self._kinds = {
            name: kind_of(actor) if isinstance(actor, type) else Kind() for name, actor in self._actors.items()
        }

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

    def kind(self, name: str) -> Kind:
        """Return what is known of actors of this name, even if there are none."""
        return self._kinds.get(name, Kind())
