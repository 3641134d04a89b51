"""One serverless pool: its `/start` requests and what happens to them. Does no I/O (PROTOCOL §7.3, §7.5).

`hear` takes what happened to a request; `pool_plan.py` says what is to be done about all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

BACKOFF = timedelta(seconds=2)
BACKOFF_EXPONENT = 8
BACKOFF_RESET = timedelta(minutes=10)
SUCCESSES_TO_CLEAR = 3
"""Good inits in a row that clear the pool's error (PROTOCOL §7.3)."""


class RequestState(StrEnum):
    """Where a `/start` request is."""

    WANTED = "wanted"
    STARTING = "starting"
    OPEN = "open"
    READY = "ready"
    DRAINING = "draining"
    CLOSING = "closing"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Config:
    """What is configured. A pool that is gone or no longer serverless wants nothing."""

    wanted: bool
    slots_per_runner: int
    min_runners: int
    max_runners: int
    runners_margin: int
    lifespan: timedelta
    grace: timedelta
    epoch: int  # grows when the endpoint changes
    ready: timedelta  # within which a request has to name its runner
    paused: bool = False  # what runs goes on, and nothing is started


@dataclass(frozen=True, slots=True)
class Request:
    """One `/start` request."""

    id: str
    state: RequestState
    epoch: int
    created_at: datetime
    started_at: datetime | None = None
    opened_at: datetime | None = None
    ready_at: datetime | None = None
    drain_at: datetime | None = None  # of one that is ready: its runner was asked to go if it is idle
    close_at: datetime | None = None  # end of the drain's grace
    ended_at: datetime | None = None
    runner_id: str = ""
    status: int | None = None
    error: Any = None
    orphaned: bool = False  # its connector is dead


@dataclass(frozen=True, slots=True)
class State:
    """A pool's requests that have not ended, by id, and its record of failures."""

    requests: Mapping[str, Request]
    error: Any = None  # as the API shows it
    error_at: datetime | None = None
    successes: int = 0
    failures: int = 0
    failed_at: datetime | None = None
    retry_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bump:
    """Demand or configuration may have changed, or time has passed: plan again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Somebody wants a start now: wait no longer after the last failure."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The endpoint answered 200 with a stream. `at`: when, as it may be told a little later; None: just now."""

    request_id: str
    status: int
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The stream named the runner it started."""

    request_id: str
    runner_id: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The request is over. `error`: why, as the API shows it; None for an ordinary end."""

    request_id: str
    error: Any = None
    status: int | None = None


@dataclass(frozen=True, slots=True)
class RunnerGone:
    """The runner of a request has ended."""

    runner_id: str


Signal = Bump | Retry | Opened | Ready | Ended | RunnerGone


@dataclass(frozen=True, slots=True)
class DrainRunner:
    """Have a runner drained; `only_if_idle`: it is the runner that knows whether it has been given an actor."""

    runner_id: str
    grace: timedelta
    only_if_idle: bool = False


@dataclass(frozen=True, slots=True)
class EvictRunner:
    """Have a runner evicted."""

    runner_id: str


Effect = DrainRunner | EvictRunner


def hear(state: State, signal: Signal, config: Config, now: datetime) -> tuple[State, list[Effect]]:
    """Return the pool after something happened to a request. What is stale changes nothing."""
    match signal:
        case Bump():
            return state, []
        case Retry():
            return replace(state, retry_at=None), []
        case Opened(request_id, status, at):
            return _opened(state, request_id, status, min(at or now, now)), []
        case Ready(request_id, runner_id):
            return _ready(state, request_id, runner_id, config, now)
        case Ended(request_id, error, status):
            return _ended(state, request_id, error, status, config, now)
        case RunnerGone(runner_id):
            for request in state.requests.values():
                if request.runner_id == runner_id and request.state is not RequestState.ENDED:
                    return with_request(state, replace(request, state=RequestState.CLOSING)), []
            return state, []


def _opened(state: State, request_id: str, status: int, at: datetime) -> State:
    request = state.requests.get(request_id)
    if request is None or request.opened_at is not None:
        return state
    match request.state:
        case RequestState.STARTING:
            return with_request(state, replace(request, state=RequestState.OPEN, status=status, opened_at=at))
        case RequestState.DRAINING:  # it may be taken back
            return with_request(state, replace(request, status=status, opened_at=at))
        case _:
            return state


def _ready(
    state: State, request_id: str, runner_id: str, config: Config, now: datetime
) -> tuple[State, list[Effect]]:
    request = state.requests.get(request_id)
    if request is None or request.ready_at is not None:
        return state, []
    known = replace(request, runner_id=runner_id, ready_at=now)
    successes = state.successes + 1
    clear = successes >= SUCCESSES_TO_CLEAR
    state = replace(
        state,
        successes=successes,
        failures=0,
        retry_at=None,
        error=None if clear else state.error,
        error_at=None if clear else state.error_at,
    )
    match request.state:
        case RequestState.DRAINING if may_return(request, config, now):
            # The runner may have an actor already. Whether it is surplus is for the next plan to say.
            return with_request(state, taken_back(known)), []
        case RequestState.DRAINING if request.close_at is not None:
            grace = max(request.close_at - now, timedelta())
            return with_request(state, known), [DrainRunner(runner_id, grace)]
        case RequestState.STARTING | RequestState.OPEN:
            return with_request(state, replace(known, state=RequestState.READY)), []
        case _:
            return with_request(state, known), [DrainRunner(runner_id, timedelta())]


def _ended(
    state: State, request_id: str, error: Any, status: int | None, config: Config, now: datetime
) -> tuple[State, list[Effect]]:
    request = state.requests.get(request_id)
    if request is None or request.state is RequestState.ENDED:
        return state, []
    status = status if status is not None else request.status
    why = error if error is not None else request.error
    over = replace(request, state=RequestState.ENDED, ended_at=now, error=why, status=status)
    effects: list[Effect] = [DrainRunner(request.runner_id, config.grace)] if request.runner_id else []
    if request.ready_at is not None or request.state in (RequestState.DRAINING, RequestState.CLOSING):
        return with_request(state, over), effects
    error = error if error is not None else "serverless_stream_ended_early"
    failed = replace(back_off(state, request, now), error=error, error_at=now, successes=0)
    return with_request(failed, over), effects


def back_off(state: State, request: Request, now: datetime) -> State:
    """Have the pool wait before the next start; requests that failed together are one failure, however many."""
    sent_at = request.started_at or request.created_at
    if state.failed_at is not None and sent_at <= state.failed_at and state.retry_at is not None:
        return state
    fresh = state.failed_at is None or now - state.failed_at >= BACKOFF_RESET
    failures = 1 if fresh else state.failures + 1
    # The first two failures wait the same (PROTOCOL §7.3); the clock's microseconds are the jitter.
    delay = BACKOFF * 2 ** min(max(failures - 2, 0), BACKOFF_EXPONENT)
    jitter = timedelta(milliseconds=now.microsecond % 500)
    return replace(state, failures=failures, failed_at=now, retry_at=now + delay + jitter)


def may_return(request: Request, config: Config, now: datetime) -> bool:
    """Say whether a request that was let go before its runner had come could serve after all.

    Nothing has been told to its runner, so it can as long as nothing but surplus is against it.
    """
    return (
        request.state is RequestState.DRAINING
        and not request.runner_id
        and not request.orphaned
        and config.wanted
        and request.epoch == config.epoch
        and request.started_at is not None
        and now < end_of_lifespan(request.started_at, config) - config.grace
    )


def taken_back(request: Request) -> Request:
    """Return a request that was let go as it would be had it not been."""
    if request.ready_at is not None:
        state = RequestState.READY
    else:
        state = RequestState.STARTING if request.opened_at is None else RequestState.OPEN
    return replace(request, state=state, drain_at=None, close_at=None)


def end_of_lifespan(started_at: datetime, config: Config) -> datetime:
    """Return when a request that was sent at some time is to be over."""
    return started_at + config.lifespan


def with_request(state: State, request: Request) -> State:
    """Return the pool with one request as given."""
    return replace(state, requests={**state.requests, request.id: request})
