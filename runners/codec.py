"""Signals of the runner and pool workflows as JSON objects, for their mailboxes. `t` names the signal."""

from datetime import datetime, timedelta
from typing import Any

from runners import lifecycle, pool

_OF_RUNNERS = {"connected", "disconnected", "drain", "slot_freed", "evict", "tick"}
_OF_POOLS = {"bump", "tick", "retry", "opened", "ready", "ended", "runner_gone"}


def knows_runner_signal(encoded: dict[str, Any]) -> bool:
    """Say whether a runner's signal is of a kind that this release has."""
    return encoded["t"] in _OF_RUNNERS


def knows_pool_signal(encoded: dict[str, Any]) -> bool:
    """Say whether a pool's signal is of a kind that this release has."""
    return encoded["t"] in _OF_POOLS


def decode_runner_signal(encoded: dict[str, Any]) -> lifecycle.Signal:
    """Return a runner's signal; KeyError or ValueError for anything else."""
    match encoded["t"]:
        case "connected":
            return lifecycle.Connected(encoded["socket_id"])
        case "disconnected":
            return lifecycle.Disconnected(encoded["socket_id"])
        case "drain":
            grace = timedelta(milliseconds=encoded["grace_ms"])
            return lifecycle.Drain(grace, only_if_idle=encoded.get("only_if_idle", False))
        case "slot_freed":
            return lifecycle.SlotFreed()
        case "evict":
            return lifecycle.Evict()
        case "tick":
            return lifecycle.Tick()
        case other:
            raise ValueError(f"no signal of a runner is called {other!r}")


def decode_pool_signal(encoded: dict[str, Any]) -> pool.Signal:
    """Return a pool's signal; KeyError or ValueError for anything else."""
    match encoded["t"]:
        case "bump" | "tick":
            return pool.Bump()
        case "retry":
            return pool.Retry()
        case "opened":
            at = encoded.get("at")
            return pool.Opened(encoded["request_id"], encoded["status"], at and datetime.fromisoformat(at))
        case "ready":
            return pool.Ready(encoded["request_id"], encoded["runner_id"])
        case "ended":
            return pool.Ended(encoded["request_id"], encoded.get("error"), encoded.get("status"))
        case "runner_gone":
            return pool.RunnerGone(encoded["runner_id"])
        case other:
            raise ValueError(f"no signal of a pool is called {other!r}")
