"""What keeps an actor from running, judged from what is known of it, its runners and its pool. Does no I/O.

`diagnose` names one cause: the one whose end would let the actor go on. docs/observability.md lists them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

SLOW = timedelta(seconds=5)
"""An endpoint, a connector or a runner that takes longer than this has a problem."""


class Cause(StrEnum):
    """Why an actor does not run, or not yet."""

    WORKER_DOWN = "worker_down"  # nothing is decided
    CONNECTOR_DOWN = "connector_down"  # nobody sends the pool's `/start` requests
    NO_POOL = "no_pool"
    POOL_PAUSED = "pool_paused"
    ENDPOINT_ERROR = "endpoint_error"  # it answered with another status than 200
    ENDPOINT_UNREACHABLE = "endpoint_unreachable"
    ENDPOINT_INVALID = "endpoint_invalid"  # its stream cannot be read
    ENDPOINT_HANGS = "endpoint_hangs"  # it has not answered
    ENDPOINT_NEVER_CONNECTS = "endpoint_never_connects"  # 200, and no runner came
    RUNNER_COMING = "runner_coming"  # all is well so far
    RUNNER_FULL = "runner_full"
    RUNNER_SILENT = "runner_silent"
    RUNNER_AWAY = "runner_away"  # it drains, has lost its socket, is cordoned or too old
    SLOT_FREE = "slot_free"  # the next look takes it
    STARTING = "starting"  # all is well so far
    START_TIMEOUT = "start_timeout"  # the runner never said running
    BACKOFF = "backoff"  # after a crash or a loss
    STOPPING = "stopping"  # the runner is still stopping the last generation


@dataclass(frozen=True, slots=True)
class RunnerFacts:
    """One runner of the pool: why it is given no actors, if so."""

    refused: str | None  # live states: None, "full", "silent", "disconnected", "cordoned", "older version"


@dataclass(frozen=True, slots=True)
class StartFacts:
    """One `/start` request that has not ended."""

    state: str
    created_at: datetime
    started_at: datetime | None
    opened_at: datetime | None


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """The actor's pool. `error` as the API shows it; the newest `starts` come first."""

    name: str
    serverless: bool
    paused: bool = False
    desired: int = 0
    max_runners: int = 0
    error: Any = None
    retry_at: datetime | None = None
    starts: Sequence[StartFacts] = ()


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the judgement rests on. `failure` is the kind of the actor's last failure, None if it has none."""

    status: str
    pool_name: str
    since: datetime | None
    due_at: datetime | None
    failure: str | None = None
    message: str | None = None
    retries: int = 0
    wake_after: bool = False
    worker_serves: bool = True
    waiting_signals: int = 0
    pool: PoolFacts | None = None
    runners: Sequence[RunnerFacts] = ()
    host_unheard_since: datetime | None = None  # the runner it is on is silent, or has lost its socket


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The cause, None if nothing keeps it; why we think so; what would let it go on. In plain words."""

    cause: Cause | None
    because: str
    unblocked_by: str | None = None


def diagnose(seen: Situation, now: datetime) -> Diagnosis:
    """Name what keeps the actor from running."""
    if not seen.worker_serves and seen.status not in ("running", "destroyed"):
        signals = f", and {seen.waiting_signals} signals wait in its mailbox" if seen.waiting_signals else ""
        return Diagnosis(
            Cause.WORKER_DOWN,
            f"no worker takes tasks: nothing is decided{signals}",
            "a Celery worker: start one, or see in its log why it does not work",
        )
    match seen.status:
        case "running" | "starting" | "stopping" if seen.host_unheard_since is not None:
            return Diagnosis(
                Cause.RUNNER_SILENT,
                f"its runner has not been heard of since {_text(seen.host_unheard_since)}",
                "the runner coming back; if it stays away it counts as lost, and the actor starts elsewhere",
            )
        case "running":
            return Diagnosis(None, "it runs")
        case "destroyed":
            return Diagnosis(None, "it was destroyed")
        case "asleep":
            return _asleep(seen)
        case "starting":
            return _starting(seen, now)
        case "stopping":
            wish = "; it starts again after that" if seen.wake_after else ""
            return Diagnosis(
                Cause.STOPPING,
                f"its runner was told to stop it and has not said stopped{wish}",
                f"the runner's word, or its time limit at {_text(seen.due_at)}",
            )
        case "backoff":
            return _backoff(seen)
        case _:
            return _waiting(seen, now)


def _asleep(seen: Situation) -> Diagnosis:
    if seen.failure is None:
        return Diagnosis(None, "it sleeps until somebody calls it or its alarm is due")
    cause = {"runner_no_response": Cause.START_TIMEOUT, "no_capacity": None}.get(seen.failure, Cause.BACKOFF)
    if cause is Cause.START_TIMEOUT:
        return Diagnosis(cause, _failed(seen) + "; it sleeps", "the next request, which starts it again")
    return Diagnosis(None, _failed(seen) + "; it sleeps until somebody calls it", None)


def _starting(seen: Situation, now: datetime) -> Diagnosis:
    late = seen.since is not None and now - seen.since >= SLOW
    if not late:
        return Diagnosis(Cause.STARTING, "its runner was told to start it", "the runner's word that it runs")
    return Diagnosis(
        Cause.START_TIMEOUT,
        "its runner was told to start it and has not said running",
        f"the runner's word that it runs; at {_text(seen.due_at)} it counts as failed and is tried again",
    )


def _backoff(seen: Situation) -> Diagnosis:
    cause = Cause.START_TIMEOUT if seen.failure == "runner_no_response" else Cause.BACKOFF
    return Diagnosis(
        cause,
        f"{_failed(seen)}; it waits before attempt {seen.retries + 1}",
        f"the next attempt, at {_text(seen.due_at)}",
    )


_FAILURES = {
    "runner_no_response": "its runner never said running, or never said stopped",
    "runner_connection_lost": "its runner went silent",
    "runner_draining_timeout": "it did not stop while its runner drained",
    "crashed": "it crashed",
    "internal_error": "the engine failed on it",
    "no_capacity": "no runner had a free slot",
}


def _failed(seen: Situation) -> str:
    text = _FAILURES.get(seen.failure or "", "it failed")
    return f"{text}: {seen.message}" if seen.message else text


def _waiting(seen: Situation, now: datetime) -> Diagnosis:
    pool = seen.pool
    if any(runner.refused is None for runner in seen.runners):
        return Diagnosis(Cause.SLOT_FREE, "a runner has a free slot", "the next look, which takes it")
    if pool is None and not seen.runners:
        wanted = f"a configuration for the pool {seen.pool_name!r}, or a runner that connects under this name"
        return Diagnosis(Cause.NO_POOL, f"there is no pool {seen.pool_name!r}", wanted)
    if pool is None or not pool.serverless:
        return _runners_refuse(seen, "another runner that connects") or Diagnosis(
            Cause.RUNNER_AWAY, "no runner of the pool is connected", "a runner that connects"
        )
    if pool.paused:
        return Diagnosis(Cause.POOL_PAUSED, f"the pool {pool.name!r} is paused", "the end of the pause")
    return _start_under_way(pool, now) or _endpoint_failed(pool) or _serverless(seen, pool)


def _start_under_way(pool: PoolFacts, now: datetime) -> Diagnosis | None:
    """Judge by the request that should bring the runner, the one longest under way."""
    for start in reversed(pool.starts):
        match start.state:
            case "wanted" if now - start.created_at >= SLOW:
                return Diagnosis(
                    Cause.CONNECTOR_DOWN,
                    f"nobody has sent the /start request of {_text(start.created_at)}",
                    "a connector: `manage.py runworker serverless`",
                )
            case "starting" if start.started_at and now - start.started_at >= SLOW:
                return Diagnosis(
                    Cause.ENDPOINT_HANGS,
                    f"the endpoint has not answered the /start request sent at {_text(start.started_at)}",
                    "an answer of the endpoint",
                )
            case "open" if start.opened_at and now - start.opened_at >= SLOW:
                return Diagnosis(
                    Cause.ENDPOINT_NEVER_CONNECTS,
                    f"the endpoint answered 200 at {_text(start.opened_at)}, and no runner has connected",
                    "a runner that connects: does the endpoint reach this engine's public URL?",
                )
    if pool.error is not None and pool.retry_at is not None:
        return None
    if any(start.state in ("wanted", "starting", "open") for start in pool.starts):
        return Diagnosis(Cause.RUNNER_COMING, "a runner is being started", "the runner, when it connects")
    return None


def _endpoint_failed(pool: PoolFacts) -> Diagnosis | None:
    if pool.error is None or pool.retry_at is None:
        return None
    kind = next(iter(pool.error)) if isinstance(pool.error, dict) else str(pool.error)
    facts = pool.error[kind] if isinstance(pool.error, dict) else {}
    again = f"it is called again at {_text(pool.retry_at)}"
    match kind:
        case "serverless_http_error":
            said = f"the endpoint answered /start with {facts.get('status_code')}"
            return Diagnosis(Cause.ENDPOINT_ERROR, said, f"an endpoint that answers 200; {again}")
        case "serverless_connection_error":
            said = f"the endpoint could not be reached, or hung up: {facts.get('message')}"
            return Diagnosis(Cause.ENDPOINT_UNREACHABLE, said, f"an endpoint that can be reached; {again}")
        case "serverless_stream_ended_early":
            said = "the endpoint answered 200, and its stream ended before a runner had connected"
            return Diagnosis(Cause.ENDPOINT_NEVER_CONNECTS, said, f"a runner that connects; {again}")
        case "serverless_invalid_sse_payload":
            said = f"the endpoint's stream cannot be read: {facts.get('message')}"
            return Diagnosis(Cause.ENDPOINT_INVALID, said, f"a stream as the protocol says; {again}")
        case _:
            said = f"the last /start request failed: {kind}"
            return Diagnosis(Cause.ENDPOINT_ERROR, said, again)


def _serverless(seen: Situation, pool: PoolFacts) -> Diagnosis:
    all_there = pool.max_runners == 0 or pool.desired >= pool.max_runners
    more = "a greater max_runners: the pool has all it may have" if all_there else "the runner that is to come"
    if pool.max_runners == 0:
        return Diagnosis(Cause.RUNNER_FULL, "the pool may have no runners: its max_runners is 0", more)
    return _runners_refuse(seen, more) or Diagnosis(
        Cause.RUNNER_COMING, "the pool has yet to ask for a runner", "the pool's next plan"
    )


def _runners_refuse(seen: Situation, more: str) -> Diagnosis | None:
    """Judge by why the runners that are there are given no actors; the silent are the first to look at."""
    reasons = [runner.refused for runner in seen.runners if runner.refused is not None]
    counted = ", ".join(f"{reasons.count(reason)} {reason}" for reason in dict.fromkeys(reasons))
    if "silent" in reasons:
        return Diagnosis(Cause.RUNNER_SILENT, f"its runners: {counted}", f"a runner that answers pings, or {more}")
    if "full" in reasons:
        return Diagnosis(Cause.RUNNER_FULL, f"its runners: {counted}", f"a free slot, or {more}")
    if reasons:
        return Diagnosis(Cause.RUNNER_AWAY, f"its runners: {counted}", more)
    return None


def _text(moment: datetime | None) -> str:
    return "a time unknown" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
