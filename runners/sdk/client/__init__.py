"""The clients' side: find an actor, or make it, and talk to it. `Client` blocks, `AsyncClient` awaits."""

from runners.sdk.client.aio import AsyncActorHandle, AsyncClient
from runners.sdk.client.blocking import ActorHandle, Client
from runners.sdk.client.calls import EngineError

__all__ = ["ActorHandle", "AsyncActorHandle", "AsyncClient", "Client", "EngineError"]
