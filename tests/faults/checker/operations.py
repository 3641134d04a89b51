"""Requests: answered, or refused with a reason, in time; what was answered holds (I3 to I5, I10 to I15)."""

from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.faults.checker.evidence import Evidence
from tests.faults.history import HOSTED_CALL, Operation

ANSWER_SECONDS = 66.0  # DESIGN §11: a request waits for its actor at most 60 s; the rest is the machine's
COUNT_KEY = b"count"
GONE = ("actor.not_found", "actor.destroyed_while_waiting_for_ready")
REASONS = (
    "guard.actor_ready_timeout",
    "guard.actor_runner_failed",
    "guard.actor_wake_retries_exceeded",
    "guard.service_unavailable",
    "guard.tunnel_response_closed",  # the link between two web processes broke, and may have swallowed the answer
    "core.bus_unavailable",
    "core.store_unavailable",
    "actor.destruction_unconfirmed",
    "application 500",  # the actor's storage was away, and its code let the error through
)
"""What a request may be refused with while faults are about."""
HOSTED_REASONS = (*REASONS, "guard.tunnel_request_aborted")
"""What a request may be refused with whose actor's runner treats it badly, whatever else is about."""
NO_HTTP = '"message": "the actor'
"""A host that talks nonsense may come upon an answer that is none in HTTP, and its client is told what it was."""
ENOUGH = 0.4
"""The least part of the operations of each kind that must succeed."""


def check_operations(evidence: Evidence) -> Iterator[str]:
    """Give what the clients' operations break."""
    yield from _check_ends(evidence)
    yield from _check_destroyed(evidence)
    yield from _check_keys(evidence)
    yield from _check_counts(evidence)
    yield from _check_late_writes(evidence)
    yield from _check_alarms(evidence)
    yield from _check_enough(evidence)


def _check_ends(evidence: Evidence) -> Iterator[str]:
    being_destroyed = {one.actor_id: one.began for one in reversed(list(evidence.history.of("destroy")))}
    for one in evidence.history.operations:
        if one.outcome == "waiting" or one.seconds > ANSWER_SECONDS:
            yield f"I3: not answered in time: {one}"
        elif one.kind == "call in vain":
            continue
        elif one.kind == "stranger" and (one.value or one.outcome == "ok"):
            if one.value:
                yield f"I15: seen from another namespace: {one}"
        elif one.outcome == "broken" and not _its_web_was_killed(evidence, one):
            yield f"I3: the connection ended without an answer: {one}"
        elif one.outcome == "refused":
            if one.code in GONE and being_destroyed.get(one.actor_id, one.ended) < one.ended:
                continue
            if one.kind == HOSTED_CALL and NO_HTTP in one.told:
                continue
            if one.code not in (HOSTED_REASONS if one.kind == HOSTED_CALL else REASONS):
                yield f"I3: refused without a good reason: {one}"
            elif one.kind != HOSTED_CALL and not evidence.harmful(one.began, one.ended):
                yield f"I3: refused although nothing was wrong that may be felt: {one}"
        if one.outcome != "ok" and one.kind == "last call":
            yield f"I4: not served when all was whole again: {one}"


def _its_web_was_killed(evidence: Evidence, one: Operation) -> bool:
    kills = evidence.faults(one.began, one.ended, "kill web", after=1.0)
    return any(f"web{one.web}" in kill.hit for kill in kills)


def _check_destroyed(evidence: Evidence) -> Iterator[str]:
    for one in evidence.history.of("call in vain"):
        if one.outcome == "ok" or (one.outcome == "refused" and one.code not in (*GONE, *REASONS)):
            yield f"a destroyed actor answered, or strangely: {one}"
        elif one.outcome == "refused" and one.code in REASONS and not evidence.harmful(one.began, one.ended):
            yield f"a destroyed actor's call was not answered 404: {one}"


def _check_keys(evidence: Evidence) -> Iterator[str]:
    made: dict[str, set[str]] = defaultdict(set)
    for one in evidence.history.of("create"):
        if one.key and one.outcome == "ok":
            made[one.key].add(one.actor_id)
    for key, actors in made.items():
        if len(actors) > 1:
            yield f"I10: the key {key} had several actors: {sorted(actors)}"


def _check_counts(evidence: Evidence) -> Iterator[str]:
    stored = {row["actor_id"]: row["value"] for row in evidence.facts.entries if bytes(row["key"]) == COUNT_KEY}
    last: dict[str, Operation] = {}
    for one in sorted(evidence.history.of("count"), key=lambda one: one.began):
        if one.outcome != "ok":
            continue
        before = last.get(one.actor_id)
        if one.value is None or (before is not None and one.value <= (before.value or 0)):
            yield f"I12: an acknowledged write was lost: {one} after {before}"
        last[one.actor_id] = one
    for actor_id, one in last.items():
        kept = int(bytes(stored.get(actor_id, b"0")))
        if kept < (one.value or 0):
            yield f"I12: an acknowledged write was lost: {one}, and {kept} is stored"


def _check_late_writes(evidence: Evidence) -> Iterator[str]:
    for one in evidence.history.late_writes:
        if one.accepted:
            yield f"I12: a life that was over has written into the next one: {one}"


def _check_alarms(evidence: Evidence) -> Iterator[str]:
    rung: dict[str, list[float]] = defaultdict(list)
    for entry in evidence.facts.timeline:
        if entry["label"] == "alarm due":
            rung[entry["actor_id"]].append(entry["at"].timestamp())
    for one in evidence.history.sleepers:
        early = [at for at in rung[one.actor_id] if one.asleep < at < one.due_ms / 1000]
        if early:
            yield f"I11: an alarm rang early, at {early}: {one}"
        lost = evidence.faults(
            one.set_at, one.asleep, "kill runner", "kill endpoint", "lose", "endpoint", "black-hole"
        )
        if one.rung is None and not any(lost):
            yield f"I11: an alarm did not ring: {one}"


def _check_enough(evidence: Evidence) -> Iterator[str]:
    done, all_ = Counter[str](), Counter[str]()
    for one in evidence.history.operations:
        all_[one.kind] += 1
        done[one.kind] += one.outcome == "ok" or (one.kind == "call in vain" and one.code in GONE)
    for kind in ("call", "count", "sleep", "create", "destroy", "read", "alarm"):
        if done[kind] < max(evidence.fewest, ENOUGH * all_[kind]):
            yield f"too little succeeded to prove anything: {done[kind]} of {all_[kind]} × {kind}"
