"""Who lived when, by the runners' journals: no life is led twice, and no two at once (I1, I2, I8)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.faults.checker.evidence import Event, Evidence

SLACK_MS = 20
"""Journals of two processes may differ by so much."""
GIVEN_UP_SECONDS = 10.0
"""A runner out of reach for longer may have been declared lost, as the engine counts from its last pong."""
RECENT_SECONDS = 60.0
HOSTED = ("starting", "running", "stopping")


@dataclass(frozen=True)
class Life:
    """One life in one process; moments in ms since the epoch, `ended` None for one that goes on."""

    actor_id: str
    generation: int
    pid: int
    process: str
    began: int
    ended: int | None


def check_lives(evidence: Evidence) -> Iterator[str]:
    """Give what the runners' journals break, by themselves and beside the actors' rows."""
    by_actor: dict[str, list[Life]] = defaultdict(list)
    for life in _lives(evidence):
        by_actor[life.actor_id].append(life)
    for of_actor in by_actor.values():
        of_actor.sort(key=lambda life: life.began)
        generations = [life.generation for life in of_actor]
        if len(set(generations)) < len(generations):
            yield f"I8: a life was led twice: {of_actor}"
        if generations != sorted(generations):
            yield f"I1: generations went back: {of_actor}"
        for earlier, later in pairwise(of_actor):
            if (earlier.ended is None or earlier.ended > later.began + SLACK_MS) and not _given_up(
                evidence, earlier, later.began / 1000
            ):
                yield f"I1: {earlier} went on while {later} began"
    yield from _check_living(evidence, by_actor)


def _check_living(evidence: Evidence, by_actor: dict[str, list[Life]]) -> Iterator[str]:
    """Whoever still lives is where its row says, and the other way round."""
    rows = {row["id"]: row for row in evidence.facts.actors}
    for actor_id, of_actor in by_actor.items():
        row = rows.get(actor_id)
        if row is None:
            yield f"I16: {actor_id} lived and has no row"
            continue
        for life in of_actor:
            hosted = row["status"] in HOSTED and row["generation"] == life.generation
            if life.ended is None and not hosted:
                yield f"I1: {life} is a zombie; its actor is {row['status']} in generation {row['generation']}"
            if life.ended is not None and row["status"] == "running" and hosted:
                yield f"I4: {actor_id} is said to run in generation {life.generation}, which has ended: {life}"


def _lives(evidence: Evidence) -> Iterator[Life]:
    deaths = _deaths(evidence)
    ends: dict[tuple[int, str, int], int] = {}
    for event in evidence.journals:
        if event["event"] == "actor_stop":
            ends[event["pid"], event["actorId"], event["generation"]] = event["at"]
    for event in evidence.journals:
        if event["event"] == "actor_start":
            pid, actor_id, generation = event["pid"], event["actorId"], event["generation"]
            ended = ends.get((pid, actor_id, generation), deaths.get(pid))
            if ended is None and pid not in evidence.pids:
                ended = _last_words(evidence.journals, pid)
            yield Life(actor_id, generation, pid, event["process"], event["at"], ended)


def _deaths(evidence: Evidence) -> dict[int, int]:
    """Return when each process was killed, or ended with its runner on the npm client, in ms since the epoch."""
    kills = (one for one in evidence.history.injected if one.fault.kind.startswith("kill"))
    own = (one for one in evidence.journals if one["event"] == "shutdown" and one["process"] == "runner-npm")
    ended = {one["pid"]: one["at"] for one in own}
    return ended | {pid: int(one.began * 1000) for one in kills for pid in one.pids}


def _last_words(journals: Sequence[Event], pid: int) -> int:
    return max(event["at"] for event in journals if event["pid"] == pid)


def _given_up(evidence: Evidence, life: Life, at: float) -> bool:
    """Whether the engine had reason to take the runner of that life for lost before a moment."""
    since = at - RECENT_SECONDS
    frozen = evidence.faults(since, at, "freeze runner", "lose runner", after=0.0)
    if any(life.pid in one.pids and one.ended - one.began > GIVEN_UP_SECONDS for one in frozen):
        return True
    number = ("runner-npm", "runner-sdk", "sdk").index(life.process)
    unheard = evidence.faults(since, at, "black-hole runner", after=0.0)
    if any(f"cable of runner {number}" in one.hit for one in unheard):
        return True
    gone: float | None = None
    for event in sorted((e for e in evidence.journals if e["pid"] == life.pid), key=lambda e: int(e["at"])):
        moment = event["at"] / 1000
        if event["event"] == "disconnected":
            gone = gone or moment
        elif event["event"] == "connected":
            if gone is not None and moment - gone > GIVEN_UP_SECONDS and since < moment and gone < at:
                return True
            gone = None
    return gone is not None and gone < at - GIVEN_UP_SECONDS
