"""What a serverless pool is to do about its `/start` requests. Does no I/O (PROTOCOL §7.3 to §7.5).

`plan` compares what there is with what is wanted. Surplus is let go so that who comes a moment later loses nothing
by it: a request whose runner has not come is taken back, and an idle runner goes only if it is idle still when
it is asked; so its request is ready until the runner is gone.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from runners.pool import (
    Config,
    DrainRunner,
    Effect,
    EvictRunner,
    Request,
    RequestState,
    State,
    back_off,
    end_of_lifespan,
    may_return,
    taken_back,
    with_request,
)

AUDIT = timedelta(seconds=30)
"""A pool that has or wants runners is planned this often, should a hint have been lost."""
REMIND = timedelta(seconds=2)
"""Connectors are reminded this often of requests they should have ended, and idle runners that they are to go."""

_UNNAMED = {RequestState.STARTING, RequestState.OPEN}
_COUNTED = {RequestState.WANTED, *_UNNAMED, RequestState.READY}


@dataclass(frozen=True, slots=True)
class Plan:
    """The pool as it shall be, what is to be done, and how many requests to add."""

    state: State
    effects: tuple[Effect, ...]
    start: int
    desired: int
    due: datetime | None  # when to plan again at the latest


def plan(
    state: State,
    config: Config,
    demand: int,
    used: Mapping[str, int],
    now: datetime,
    closed: Collection[str] = (),
) -> Plan:
    """Return what to do so that the pool has the runners it should.

    `demand` is in slots, counted from the actors; `used` gives the slots in use by runner id. A runner that is
    closed to new actors, being cordoned or on its way out, serves those it has and counts for no others.
    """
    before = state.requests
    state = _give_up(state, config, now)
    requests = {id_: _overdue(request, config, now) for id_, request in state.requests.items()}
    present = [request for request in requests.values() if request.state in _COUNTED]
    counted = [request for request in present if request.runner_id not in closed]
    served = sum(used.get(request.runner_id, 0) for request in present if request.runner_id in closed)
    # A slot in use is an actor. The two were not read at one moment, and nobody busy is to go for that.
    desired = wanted_runners(config, max(demand, sum(used.values())) - served)
    surplus = sorted(counted, key=lambda request: _usefulness(request, used))[: max(len(counted) - desired, 0)]
    missing = max(desired - len(counted), 0)
    back = [] if config.paused else _returning(requests.values(), config, now)[:missing]
    changed = {request.id: _dismissed(request, used, config, now) for request in surplus}
    changed |= {request.id: taken_back(request) for request in back}
    requests = {id_: changed.get(id_) or _settled(request, now) for id_, request in requests.items()}
    missing -= len(back)
    waits = config.paused or (state.retry_at is not None and now < state.retry_at)
    deadlines = [deadline for request in requests.values() if (deadline := _deadline(request, config, now))]
    if missing and not config.paused and waits and state.retry_at is not None:
        deadlines.append(state.retry_at)
    if desired or deadlines:
        deadlines.append(now + AUDIT)
    return Plan(
        state=replace(state, requests=requests),
        effects=tuple(_farewells(before, requests, config, now)),
        start=0 if waits else missing,
        desired=desired,
        due=min(deadlines, default=None),
    )


def wanted_runners(config: Config, demand: int) -> int:
    """Return how many runners the pool should have (PROTOCOL §7.4); the maximum wins over the minimum."""
    if not config.wanted:
        return 0
    needed = config.runners_margin + -(-max(demand, 0) // config.slots_per_runner)
    return min(max(needed, config.min_runners), config.max_runners)


def _give_up(state: State, config: Config, now: datetime) -> State:
    """Close requests that were answered with no runner, or not at all, for too long: failures like others."""
    for request in state.requests.values():
        if request.state in _UNNAMED and _is_late(request, config, now):
            message = f"no runner within {config.ready.total_seconds():g} s"
            error = {"serverless_connection_error": {"message": message}}
            closing = replace(request, state=RequestState.CLOSING, error=error)
            failed = replace(back_off(state, request, now), error=error, error_at=now, successes=0)
            state = with_request(failed, closing)
    return state


def _is_late(request: Request, config: Config, now: datetime) -> bool:
    return request.started_at is not None and now >= request.started_at + config.ready


def _overdue(request: Request, config: Config, now: datetime) -> Request:
    """Drain what has reached the end of its lifespan or belongs to an old endpoint."""
    if request.state in (RequestState.DRAINING, RequestState.CLOSING):
        return replace(request, state=RequestState.ENDED, ended_at=now) if request.orphaned else request
    if request.state is RequestState.ENDED:
        return request
    if request.started_at is not None:
        end = end_of_lifespan(request.started_at, config)
        if now >= end - config.grace:
            return _let_go(request, now, max(end, now))
    if request.epoch != config.epoch:
        return _let_go(request, now, now + config.grace)
    return request


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


def _dismissed(request: Request, used: Mapping[str, int], config: Config, now: datetime) -> Request:
    """Return a surplus request as it goes on. An idle runner is asked to go, and again if it has not gone."""
    idle = request.state is RequestState.READY and not used.get(request.runner_id, 0)
    if not idle or request.orphaned or not config.wanted:
        return _let_go(request, now, now + config.grace)
    if request.drain_at is not None and now < request.drain_at + REMIND:
        return request
    return replace(request, drain_at=now)


def _settled(request: Request, now: datetime) -> Request:
    """Return a request that is neither surplus nor taken back as it goes on.

    What has drained is closed. Whose runner was asked to go and is needed has stayed, or will be told to be gone.
    """
    match request.state:
        case RequestState.READY:
            return replace(request, drain_at=None)
        case RequestState.DRAINING if request.close_at is not None and now >= request.close_at:
            return replace(request, state=RequestState.CLOSING)
        case _:
            return request


def _returning(requests: Iterable[Request], config: Config, now: datetime) -> list[Request]:
    """Return what was let go and can be had back, the oldest first: it is the nearest to having a runner."""
    able = [one for one in requests if may_return(one, config, now) and not _is_late(one, config, now)]
    return sorted(able, key=lambda request: (request.created_at, request.id))


def _deadline(request: Request, config: Config, now: datetime) -> datetime | None:
    match request.state:
        case RequestState.STARTING | RequestState.OPEN if request.started_at is not None:
            end = end_of_lifespan(request.started_at, config)
            return min(end - config.grace, request.started_at + config.ready)
        case RequestState.READY if request.started_at is not None:
            end = end_of_lifespan(request.started_at, config) - config.grace
            return end if request.drain_at is None else min(end, request.drain_at + REMIND)
        case RequestState.DRAINING:
            return request.close_at
        case RequestState.CLOSING:
            return now + REMIND
        case _:
            return None


def _farewells(
    before: Mapping[str, Request], after: Mapping[str, Request], config: Config, now: datetime
) -> Iterator[Effect]:
    """Give what runners are to be told, as their requests are let go or closed."""
    for id_, request in after.items():
        earlier = before[id_]
        if not request.runner_id:
            continue
        if request.state is earlier.state:
            if request.state is RequestState.READY and request.drain_at not in (None, earlier.drain_at):
                yield DrainRunner(request.runner_id, config.grace, only_if_idle=True)
        elif request.state is RequestState.CLOSING:
            yield EvictRunner(request.runner_id)
        elif earlier.state is RequestState.READY and request.close_at is not None:
            yield DrainRunner(request.runner_id, request.close_at - now)
