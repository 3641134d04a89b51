"""Tests of actors: without an engine, in one process and with time at hand; or with a real one."""

from runners.sdk.testing.actor import ActorFailed, ActorGone, LocalActor
from runners.sdk.testing.clock import ManualClock
from runners.sdk.testing.engine import LocalEngine
from runners.sdk.testing.served import RunningEngine, running_engine
from runners.sdk.testing.socket import LocalSocket

__all__ = [
    "ActorFailed",
    "ActorGone",
    "LocalActor",
    "LocalEngine",
    "LocalSocket",
    "ManualClock",
    "RunningEngine",
    "running_engine",
]
