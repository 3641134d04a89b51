"""The flows of DESIGN §1 as recorded arrows, how a record is compared with them, and how the messy one is led.

A step of a flow is an arrow, or `together`: strands that go on at the same time, each in its own order.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from tests.support.cluster import Arrow, Cluster
from tests.support.endpoint import Endpoint
from tests.support.stories import sleeping_actor

Path = tuple[str, ...]
"""An arrow's label and the participants along its way."""

USER, GATEWAY, ACTOR = "User", "Gateway", "Actor workflow"
SERVERLESS, ENDPOINT = "Serverless", "Serverless endpoint"
RUNNER, SOCKET, RUNNERS = "Runner", "Runner WS", "Runner workflow"


@dataclass(frozen=True)
class Together:
    """Strands that go on at the same time."""

    strands: tuple[tuple[Path, ...], ...]


Flow = Sequence[Path | Together]

SLEEP = "/sleep?stop_ms=1500"  # sends its intent, then answers; then the stop takes its time
ONE = "/slow?ms=60000&before=3&stop_ms=60000"  # never answered, and no stop done in time, before generation 3
GRACE_SECONDS = 2

WAKE = ("wake", GATEWAY, ACTOR)
NO_RUNNER = ("allocate: no runner free, pending", ACTOR, ACTOR)
BUMP = ("bump", ACTOR, SERVERLESS)
NEW_RUNNER: Flow = [
    ("GET /start", SERVERLESS, ENDPOINT),
    ("connect, init", RUNNER, SOCKET),
    ("registered", SOCKET, RUNNERS),
    ("allocate pending", RUNNERS, ACTOR),
]
START_ACTOR = ("StartActor", ACTOR, RUNNERS, SOCKET, RUNNER)
RUNNING = ("running", RUNNER, SOCKET, RUNNERS, ACTOR)
READY = ("ready", ACTOR, GATEWAY)
REQUEST = ("request start", GATEWAY, SOCKET, RUNNER)
RESPONSE = ("response start", RUNNER, SOCKET, GATEWAY, USER)
INTENT = ("intent: sleep", RUNNER, SOCKET, RUNNERS, ACTOR)
SECOND_INTENT = ("intent: sleep (ignored, it stops already)", *INTENT[1:])
STOP_ACTOR = ("StopActor", *START_ACTOR[1:])
STOPPED = ("stopped", *INTENT[1:])
DEALLOCATE = ("deallocate", ACTOR, ACTOR)
TOLD_STOPPED = ("stopped", ACTOR, GATEWAY)
OVER: Flow = [DEALLOCATE, BUMP, TOLD_STOPPED]
STOP = ("stop", SERVERLESS, RUNNERS)
EVICT = ("evict", RUNNERS, SOCKET)
RUNNER_STOPPED = ("stopped", RUNNERS, RUNNERS)
END_OF_STREAM = ("end of the stream", ENDPOINT, SERVERLESS)
RETRIED = [  # after *stopped*; there is none if the actor runs again before the gateway has looked
    ("wake (ignored, already allocated)", GATEWAY, ACTOR),
    ("wake (waits already)", GATEWAY, ACTOR),
]

IDEAL: Flow = [
    ("GET /", USER, GATEWAY),
    WAKE,
    NO_RUNNER,
    BUMP,
    *NEW_RUNNER,
    START_ACTOR,
    RUNNING,
    READY,
    REQUEST,
    RESPONSE,
]

# An actor that does not stop is lost with its runner; one that stops in time has its request given back before.
LOST: Flow = [EVICT, RUNNER_STOPPED, ("runner lost", RUNNERS, ACTOR), *OVER, WAKE, NO_RUNNER, BUMP]
GIVEN_BACK: Flow = [
    ("wake (deferred until stopped)", GATEWAY, ACTOR),
    STOPPED,
    *OVER,
    NO_RUNNER,  # how the runner ends is no longer this actor's affair
    BUMP,
]


def messy(ending: Flow) -> Flow:
    """Return the messy flow (DESIGN §1.2), its first runner's end as given."""
    return [
        ("GET /sleep", USER, GATEWAY),  # 1, and 2 comes with it; no query is written down
        WAKE,
        NO_RUNNER,
        BUMP,
        *NEW_RUNNER,
        START_ACTOR,
        RUNNING,
        READY,
        Together(((REQUEST, RESPONSE), (INTENT, STOP_ACTOR, SECOND_INTENT))),  # 3
        ("GET /slow", USER, GATEWAY),  # 4
        ("wake (deferred until stopped)", GATEWAY, ACTOR),
        STOPPED,  # 5
        *OVER,
        ("allocate", ACTOR, ACTOR),
        START_ACTOR,
        RUNNING,
        READY,
        REQUEST,
        STOP,  # 6
        ("runner draining", RUNNERS, ACTOR),
        STOP_ACTOR,
        *ending,
        *NEW_RUNNER,  # 7
        START_ACTOR,
        RUNNING,
        READY,
        REQUEST,
        RESPONSE,
        INTENT,  # 8
        STOP_ACTOR,
        STOPPED,
        *OVER,
        STOP,
        EVICT,
        RUNNER_STOPPED,
    ]


@dataclass(frozen=True)
class MessyRun:
    """What came of the messy flow: the actor, the users' answers in order, the arrows recorded."""

    actor_id: str
    answers: list[httpx.Response]
    recorded: list[Arrow]


def lead_messy_flow(cluster: Cluster, endpoint: Endpoint, pool: str) -> MessyRun:
    """Lead an actor that sleeps, without a runner, through the messy flow."""
    api = cluster.api
    settings = {"drain_grace_period": GRACE_SECONDS}
    api.put_serverless_pool(pool, endpoint.url, **settings)
    actor_id = sleeping_actor(cluster, endpoint, pool)
    earlier = len(cluster.wait_recorded(actor_id, END_OF_STREAM[0]))
    answers: list[Future[httpx.Response]] = []
    with ThreadPoolExecutor(3) as users:
        endpoint.hold()
        answers.append(users.submit(api.call, actor_id, SLEEP))
        endpoint.wait("start_request", pool=pool, count=2)
        answers.append(users.submit(api.call, actor_id, SLEEP))
        endpoint.go()
        endpoint.wait("actor_stopping", actorId=actor_id, generation=1)
        [answer.result() for answer in answers]
        answers.append(users.submit(api.call, actor_id, ONE))
        endpoint.wait("slow_request", actorId=actor_id, generation=2)
        api.put_serverless_pool(pool, endpoint.url, max_runners=0, **settings)
        api.wait_actor(actor_id, "pending", lambda actor: actor["pending_allocation_ts"] is not None)
        api.wait_runners(pool, 0)
        api.put_serverless_pool(pool, endpoint.url, max_runners=1, **settings)
        answers[-1].result()
        answers.append(users.submit(api.call, actor_id, "/sleep?stop_ms=0"))
        endpoint.wait("actor_stop", actorId=actor_id, generation=3)
    api.wait_asleep(actor_id)
    api.wait_runners(pool, 0)
    recorded = cluster.timeline(actor_id)[earlier:]
    return MessyRun(actor_id, [answer.result() for answer in answers], recorded)


def path(arrow: Arrow) -> Path:
    """Return an arrow's label and the participants along its way."""
    return (arrow["label"], arrow["source"], *arrow["via"], arrow["target"])


def recorded_as(flow: Flow, recorded: Iterable[Arrow]) -> list[Path]:
    """Return the recorded paths, with what went on together in the order of the flow; see `laid_out`.

    Left out is what has no place in the order: when a connector sees a stream end, a wake that is retried although
    the actor wakes already, and that a life is *ready* once more, which is the answer to such a wake.
    """
    paths = [path(arrow) for arrow in recorded]
    return _in_order(flow, list(_ready_once(one for one in paths if one not in [END_OF_STREAM, *RETRIED])))


def laid_out(flow: Flow) -> list[Path]:
    """Return the paths of a flow, strand after strand."""
    return [one for step in flow for one in (sum(step.strands, ()) if isinstance(step, Together) else [step])]


def _ready_once(paths: Iterable[Path]) -> Iterator[Path]:
    ready = False
    for one in paths:
        if one == START_ACTOR:
            ready = False
        if one != READY or not ready:
            yield one
        ready = ready or one == READY


def _in_order(flow: Flow, paths: Sequence[Path]) -> list[Path]:
    """Return the paths with those that went on together strand by strand, as far as they are what was to come."""
    ordered: list[Path] = []
    rest = list(paths)
    for step in flow:
        if not isinstance(step, Together):
            ordered += rest[:1]
            rest = rest[1:]
            continue
        expected = [one for strand in step.strands for one in strand]
        block, rest = rest[: len(expected)], rest[len(expected) :]
        if Counter(block) != Counter(expected):
            return [*ordered, *block, *rest]
        for strand in step.strands:
            ordered += [one for one in block if one in strand]
    return [*ordered, *rest]
