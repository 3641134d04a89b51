"""One serverless pool: its `/start` requests, and how many it should have. Does no I/O (PROTOCOL §7.3 to §7.5).

`hear` takes what happened to a request; `plan` compares what there is with what is wanted and says what to do.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

BACKOFF = timedelta(seconds=2)
BACKOFF_EXPONENT = 8
BACKOFF_RESET = timedelta(minutes=10)
SUCCESSES_TO_CLEAR = 3
"""Good inits in a row that clear the pool's error (PROTOCOL §7.3)."""
AUDIT = timedelta(seconds=30)
"""A pool that has or wants runners is planned this often, should a hint have been lost."""
CLOSE_AGAIN = timedelta(seconds=2)
"""A connector is reminded this often of a request it should have ended."""


class RequestState(StrEnum):
    """Where a `/start` request is."""

    WANTED = "wanted"
    STARTING = "starting"
    OPEN = "open"
    READY = "ready"
    DRAINING = "draining"
    CLOSING = "closing"
    ENDED = "ended"


_UNNAMED = {RequestState.STARTING, RequestState.OPEN}
_COUNTED = {RequestState.WANTED, RequestState.STARTING, RequestState.OPEN, RequestState.READY}


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
    drain_at: datetime | None = None
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
    """Have a runner drained."""

    runner_id: str
    grace: timedelta


@dataclass(frozen=True, slots=True)
class EvictRunner:
    """Have a runner evicted."""

    runner_id: str


Effect = DrainRunner | EvictRunner


@dataclass(frozen=True, slots=True)
class Plan:
    """The pool as it shall be, what is to be done, and how many requests to add."""

    state: State
    effects: tuple[Effect, ...]
    start: int
    desired: int
    due: datetime | None  # when to plan again at the latest


def hear(state: State, signal: Signal, config: Config, now: datetime) -> tuple[State, list[Effect]]:
    """Return the pool after something happened to a request. What is stale changes nothing."""
    match signal:
        case Bump():
            return state, []
        case Retry():
            return replace(state, retry_at=None), []
        case Opened(request_id, status, at):
            request = state.requests.get(request_id)
            if request is None or request.state is not RequestState.STARTING:
                return state, []
            opened_at = min(at or now, now)
            return _with(state, replace(request, state=RequestState.OPEN, status=status, opened_at=opened_at)), []
        case Ready(request_id, runner_id):
            return _ready(state, request_id, runner_id, now)
        case Ended(request_id, error, status):
            return _ended(state, request_id, error, status, config, now)
        case RunnerGone(runner_id):
            for request in state.requests.values():
                if request.runner_id == runner_id and request.state is not RequestState.ENDED:
                    return _with(state, replace(request, state=RequestState.CLOSING)), []
            return state, []


def _ready(state: State, request_id: str, runner_id: str, now: datetime) -> tuple[State, list[Effect]]:
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
        case RequestState.DRAINING if request.close_at is not None:
            return _with(state, known), [DrainRunner(runner_id, max(request.close_at - now, timedelta()))]
        case RequestState.STARTING | RequestState.OPEN:
            return _with(state, replace(known, state=RequestState.READY)), []
        case _:
            return _with(state, known), [DrainRunner(runner_id, timedelta())]


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
        return _with(state, over), effects
    error = error if error is not None else "serverless_stream_ended_early"
    failed = replace(_back_off(state, request, now), error=error, error_at=now, successes=0)
    return _with(failed, over), effects


def _back_off(state: State, request: Request, now: datetime) -> State:
    """Wait before the next start. Requests that failed together are one failure, however many they were."""
    sent_at = request.started_at or request.created_at
    if state.failed_at is not None and sent_at <= state.failed_at and state.retry_at is not None:
        return state
    fresh = state.failed_at is None or now - state.failed_at >= BACKOFF_RESET
    failures = 1 if fresh else state.failures + 1
    # The first two failures wait the same (PROTOCOL §7.3); the clock's microseconds are the jitter.
    delay = BACKOFF * 2 ** min(max(failures - 2, 0), BACKOFF_EXPONENT)
    jitter = timedelta(milliseconds=now.microsecond % 500)
    return replace(state, failures=failures, failed_at=now, retry_at=now + delay + jitter)


def plan(
    state: State,
    config: Config,
    demand: int,
    used: Mapping[str, int],
    now: datetime,
    cordoned: Collection[str] = (),
) -> Plan:
    """Return what to do so that the pool has the runners it should.

    `demand` is in slots, counted from the actors; `used` gives the slots in use by runner id. A cordoned runner
    serves the actors it has and counts for no others.
    """
    before = state.requests
    state = _give_up(state, config, now)
    requests = {id_: _overdue(request, config, now) for id_, request in state.requests.items()}
    present = [request for request in requests.values() if request.state in _COUNTED]
    counted = [request for request in present if request.runner_id not in cordoned]
    served = sum(used.get(request.runner_id, 0) for request in present if request.runner_id in cordoned)
    desired = wanted_runners(config, demand - served)
    surplus = sorted(counted, key=lambda request: _usefulness(request, used))[: max(len(counted) - desired, 0)]
    requests |= {request.id: _let_go(request, now, now + config.grace) for request in surplus}
    missing = max(desired - len(counted), 0)
    waits = config.paused or (state.retry_at is not None and now < state.retry_at)
    deadlines = [deadline for request in requests.values() if (deadline := _deadline(request, config, now))]
    if missing and not config.paused and waits and state.retry_at is not None:
        deadlines.append(state.retry_at)
    if desired or deadlines:
        deadlines.append(now + AUDIT)
    return Plan(
        state=replace(state, requests=requests),
        effects=tuple(_farewells(before, requests, now)),
        start=0 if waits else missing,
        desired=desired,
        due=min(deadlines, default=None),
    )


def _give_up(state: State, config: Config, now: datetime) -> State:
    """Close requests that were answered with no runner, or not at all, for too long: failures like others."""
    for request in state.requests.values():
        if (
            request.state in _UNNAMED
            and request.started_at is not None
            and now >= request.started_at + config.ready
        ):
            message = f"no runner within {config.ready.total_seconds():g} s"
            error = {"serverless_connection_error": {"message": message}}
            closing = replace(request, state=RequestState.CLOSING, error=error)
            failed = replace(_back_off(state, request, now), error=error, error_at=now, successes=0)
            state = _with(failed, closing)
    return state


def _farewells(before: Mapping[str, Request], after: Mapping[str, Request], now: datetime) -> Iterator[Effect]:
    """Give what runners are to be told, as their requests are let go or closed."""
    for id_, request in after.items():
        earlier = before[id_].state
        if not request.runner_id or request.state is earlier:
            continue
        if request.state is RequestState.CLOSING:
            yield EvictRunner(request.runner_id)
        elif earlier is RequestState.READY and request.close_at is not None:
            yield DrainRunner(request.runner_id, request.close_at - now)


def wanted_runners(config: Config, demand: int) -> int:
    """Return how many runners the pool should have (PROTOCOL §7.4); the maximum wins over the minimum."""
    if not config.wanted:
        return 0
    needed = config.runners_margin + -(-max(demand, 0) // config.slots_per_runner)
    return min(max(needed, config.min_runners), config.max_runners)


def _with(state: State, request: Request) -> State:
    return replace(state, requests={**state.requests, request.id: request})


def _overdue(request: Request, config: Config, now: datetime) -> Request:
    """Drain what has reached the end of its lifespan or belongs to an old endpoint; close what has drained."""
    if request.state in (RequestState.DRAINING, RequestState.CLOSING):
        if request.orphaned:
            return replace(request, state=RequestState.ENDED, ended_at=now)
        if request.state is RequestState.DRAINING and request.close_at is not None and now >= request.close_at:
            return replace(request, state=RequestState.CLOSING)
        return request
    if request.state is RequestState.ENDED:
        return request
    end = _end_of_lifespan(request, config)
    if end is not None and now >= end - config.grace:
        return _let_go(request, now, max(end, now))
    if request.epoch != config.epoch:
        return _let_go(request, now, now + config.grace)
    return request


def _end_of_lifespan(request: Request, config: Config) -> datetime | None:
    return None if request.started_at is None else request.started_at + config.lifespan


def _let_go(request: Request, now: datetime, close_at: datetime) -> Request:
    """Drain a request's runner, or that which is still to come of it (PROTOCOL §7.5)."""
    if request.state is RequestState.WANTED:
        return replace(request, state=RequestState.ENDED, ended_at=now)
    let_go = replace(request, state=RequestState.DRAINING, drain_at=now, close_at=close_at)
    return replace(let_go, state=RequestState.ENDED, ended_at=now) if request.orphaned else let_go


def _usefulness(request: Request, used: Mapping[str, int]) -> tuple[int, float]:
    """Order requests by what is lost with them: not sent, not ready, idle, busy; the oldest runners first.

    Of those without a runner the newest come first, as the others are nearer to having one.
    """
    match request.state:
        case RequestState.WANTED:
            rank = 0
        case RequestState.READY:
            rank = 3 if used.get(request.runner_id, 0) else 2
        case _:
            rank = 1
    age = request.created_at.timestamp()
    return rank, age if rank >= 2 else -age


def _deadline(request: Request, config: Config, now: datetime) -> datetime | None:
    match request.state:
        case RequestState.STARTING | RequestState.OPEN | RequestState.READY:
            end = _end_of_lifespan(request, config)
            if end is None or request.started_at is None:
                return None
            named = request.state is RequestState.READY
            return end - config.grace if named else min(end - config.grace, request.started_at + config.ready)
        case RequestState.DRAINING:
            return request.close_at
        case RequestState.CLOSING:
            return now + CLOSE_AGAIN
        case _:
            return None
