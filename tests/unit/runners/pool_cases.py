"""Pools and requests for the tables and the laws of `pool.py` and `pool_plan.py`."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from runners.pool import Config, Request, RequestState, State

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GRACE = 10 * SECOND
CONFIG = Config(
    wanted=True,
    slots_per_runner=1,
    min_runners=0,
    max_runners=1000,
    runners_margin=0,
    lifespan=900 * SECOND,
    grace=GRACE,
    epoch=1,
    ready=120 * SECOND,
)
EMPTY = State({})
HTTP_500 = {"serverless_http_error": {"status_code": 500, "body": "no"}}

WANTED, STARTING, OPEN, READY = (
    RequestState.WANTED,
    RequestState.STARTING,
    RequestState.OPEN,
    RequestState.READY,
)
DRAINING, CLOSING, ENDED = RequestState.DRAINING, RequestState.CLOSING, RequestState.ENDED
SENT = {STARTING, OPEN, READY, DRAINING, CLOSING}


def request(id_: str, state: RequestState, age: int = 60, **more: object) -> Request:
    """Return a request that was made and sent `age` seconds before noon; the runner of `r1` is `runner-r1`."""
    at = NOON - age * SECOND
    known = {"started_at": at} if state in SENT else {}
    if state in (OPEN, READY, DRAINING):
        known |= {"opened_at": at}
    if state in (READY, DRAINING):
        known |= {"runner_id": f"runner-{id_}", "ready_at": at}
    if state is DRAINING:
        known |= {"drain_at": at, "close_at": NOON + 5 * SECOND}
    return Request(id_, state, epoch=1, created_at=at, **(known | more))


def let_go(id_: str, age: int = 60, **more: object) -> Request:
    """Return a request that is drained and whose runner has not come."""
    return request(id_, DRAINING, age, **{"runner_id": "", "opened_at": None, "ready_at": None} | more)


def asked(id_: str, age: int = 60, ago: int = 1) -> Request:
    """Return a request that is ready and whose runner was asked `ago` seconds ago to go if it is idle."""
    return request(id_, READY, age, drain_at=NOON - ago * SECOND)


def pool(*requests: Request, **more: object) -> State:
    return State({one.id: one for one in requests}, **more)


def states(state: State) -> dict[str, str]:
    return {id_: one.state.value for id_, one in state.requests.items()}


PATIENT = replace(CONFIG, ready=CONFIG.lifespan)  # whose requests do not fail by being looked at
ids = st.sampled_from("abcdefgh")
ages = st.integers(0, 899)  # from 900 on its lifespan is over, and the next plan closes it
made_requests = st.builds(
    lambda made, orphaned, epoch: replace(made, orphaned=orphaned, epoch=epoch),
    st.one_of(
        st.builds(request, ids, st.sampled_from(RequestState), ages),
        st.builds(let_go, ids, ages),
        st.builds(asked, ids, ages, st.integers(1, 3)),
    ),
    st.booleans(),
    st.integers(1, 2),
)
made_pools = st.lists(made_requests, max_size=8).map(lambda requests: pool(*requests))
