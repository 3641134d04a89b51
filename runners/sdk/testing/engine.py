"""An engine for unit tests: one runner, in this process and event loop, with all its actors in memory."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from runners.protocol.codec import decode_to_server
from runners.protocol.messages import (
    ProtocolMetadata,
    ToClient,
    ToClientInit,
    ToClientKvResponse,
    ToServerEvents,
    ToServerKvRequest,
    ToServerTunnelMessage,
)
from runners.sdk.actor import ActorLike, Registry
from runners.sdk.conversation import Conversation
from runners.sdk.session.reconnect import PROTOCOL_VERSION
from runners.sdk.testing.actor import LocalActor
from runners.sdk.testing.clock import ManualClock

PATIENCE_S = 1.0  # with requests that are still in flight when a test ends
METADATA = ProtocolMetadata(
    runner_lost_threshold_ms=0, actor_stop_threshold_ms=30_000, serverless_drain_grace_period_ms=None
)


class LocalEngine:
    """Hosts actors for a test: `async with LocalEngine({"counter": Counter}) as engine: …`.

    Time stands still, for scheduled calls, alarms and idleness, until `advance`; `asyncio.sleep` in an actor's own
    code is not concerned. What actors log goes to `logging`, as ever.
    """

    def __init__(self, actors: Mapping[str, ActorLike] | Registry) -> None:
        """`actors` is what a Runner is given."""
        self.clock = ManualClock()
        self._registry = Registry(actors)
        self._actors: dict[str, LocalActor] = {}  # by id
        self._keyed: dict[tuple[str, str], LocalActor] = {}
        self._conversation: Conversation | None = None
        self._pump: asyncio.Task[None] | None = None

    def actor(self, name: str, *, key: str | None = None, input: bytes | None = None) -> LocalActor:
        """Return the living actor of that name and key, a new one if there is none, or if there is no key.

        Raises LookupError for a name that is not among `actors`.
        """
        if name not in self._registry:
            raise LookupError(f"there is no actor named {name!r}")
        known = self._keyed.get((name, key)) if key is not None else None
        if known is not None and not known.is_destroyed:
            return known
        actor = LocalActor(f"local-{len(self._actors)}", name, key, input, self.clock, self._tell)
        self._actors[actor.id] = actor
        if key is not None:
            self._keyed[name, key] = actor
        return actor

    async def advance(self, by: timedelta) -> None:
        """Let time pass; alarms, scheduled calls and idleness come in their turn."""
        await self.clock.advance(by)

    async def __aenter__(self) -> Self:
        self._conversation = Conversation(self._registry, self.clock)
        self._conversation.receive(ToClientInit("local-runner", METADATA))
        self._pump = asyncio.create_task(self._conversation.outbox.pump(self._take))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._conversation is not None
        assert self._pump is not None
        farewells = [asyncio.create_task(actor.sleep()) for actor in self._actors.values() if actor.is_awake]
        if farewells:
            await asyncio.wait(farewells, timeout=PATIENCE_S)
        await self._conversation.end()
        await asyncio.gather(*farewells, return_exceptions=True)
        self._pump.cancel()
        await asyncio.wait([self._pump])

    def _tell(self, message: ToClient) -> None:
        assert self._conversation is not None, "use `async with LocalEngine(…)`"
        self._conversation.receive(message)

    async def _take(self, frame: bytes) -> None:
        """Take a frame of the runner, which went through the codec like any other."""
        message = decode_to_server(frame, PROTOCOL_VERSION)
        if isinstance(message, ToServerEvents):
            for event in message.events:
                if (actor := self._actors.get(event.checkpoint.actor_id)) is not None:
                    actor.happened(event.inner, event.checkpoint.generation)
        elif isinstance(message, ToServerKvRequest):
            if (actor := self._actors.get(message.actor_id)) is not None:
                self._tell(ToClientKvResponse(message.request_id, actor.store.answer(message.data)))
        elif isinstance(message, ToServerTunnelMessage):
            for actor in self._actors.values():
                if actor.knows(message.message_id.request_id):
                    actor.heard(message.message_id.request_id, message.message_kind)
