"""The runner SDK for Python: write actors, host them in a process of yours, or behind an HTTP endpoint.

It needs no Django, only `websockets` and the protocol package beside it.
"""

from runners.sdk.actor import Actor, Registry, scheduled
from runners.sdk.asgi import AsgiActor, asgi_actor
from runners.sdk.context import Context
from runners.sdk.errors import (
    KvError,
    KvTimeout,
    OwnershipLost,
    RequestTooLarge,
    RunnerStopped,
    SdkError,
    WebSocketClosed,
)
from runners.sdk.http import Request, Response, StreamingResponse
from runners.sdk.idle import KeepAwake
from runners.sdk.kv import Kv
from runners.sdk.runner import Runner
from runners.sdk.schedule import Planned, Schedule
from runners.sdk.serverless import ServerlessApp, serverless_app
from runners.sdk.state import State
from runners.sdk.websocket import WebSocket

__all__ = [
    "Actor",
    "AsgiActor",
    "Context",
    "KeepAwake",
    "Kv",
    "KvError",
    "KvTimeout",
    "OwnershipLost",
    "Planned",
    "Registry",
    "Request",
    "RequestTooLarge",
    "Response",
    "Runner",
    "RunnerStopped",
    "Schedule",
    "SdkError",
    "ServerlessApp",
    "State",
    "StreamingResponse",
    "WebSocket",
    "WebSocketClosed",
    "asgi_actor",
    "scheduled",
    "serverless_app",
]
