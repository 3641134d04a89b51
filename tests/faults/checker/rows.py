"""The database when everything has settled (I4, I9, I10, I16), and what must have been tidied away by then."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from actors.models import Actor
from actors.tasks import limits
from tests.faults.checker.evidence import Evidence
from tests.faults.checker.lives import HOSTED
from tests.support.replay import Departure, essence, replay

LATE = timedelta(seconds=10)


def check_rows(evidence: Evidence) -> Iterator[str]:
    """Give what the rows break."""
    yield from (f"{name} ended by itself" for name in evidence.ended)
    yield from _check_settled(evidence)
    yield from _check_slots(evidence)
    yield from _check_timelines(evidence)
    yield from _check_left_over(evidence)


def _check_settled(evidence: Evidence) -> Iterator[str]:
    now = datetime.fromtimestamp(evidence.history.ended_at, UTC)
    keys = Counter[tuple[str, str, str]]()
    for row in evidence.facts.actors:
        who = f"{row['id']} is {row['status']}, due {row['due_at']}"
        if row["status"] not in ("asleep", "destroyed", "running"):
            yield f"I4: not settled: {who}"
        elif row["status"] == "running" and (row["due_at"] is None or row["due_at"] < now - LATE):
            yield f"I4: overdue: {who}"
        if row["key"] is not None and row["status"] != "destroyed":
            keys[row["namespace_id"], row["name"], row["key"]] += 1
    for place, count in keys.items():
        if count > 1:
            yield f"I10: {count} live actors of {place}"
    for row in evidence.facts.runners:
        if row["state"] != "live" and (row["state"] != "stopped" or row["due_at"] is not None):
            yield f"I4: runner {row['id']} is still {row['state']}, due {row['due_at']}"
        if row["state"] != "stopped" and not row["socket_id"]:
            yield f"I4: runner {row['id']} is {row['state']} without a socket"
    yield from (f"a signal was set aside: {row}" for row in evidence.facts.set_aside)


def _check_slots(evidence: Evidence) -> Iterator[str]:
    held = Counter(row["runner_id"] for row in evidence.facts.actors if row["status"] in HOSTED)
    for row in evidence.facts.runners:
        if row["used_slots"] != held[row["id"]] or row["used_slots"] > row["total_slots"]:
            yield f"I9: runner {row['id']} counts {row['used_slots']} slots and has {held[row['id']]} actors"


def _check_timelines(evidence: Evidence) -> Iterator[str]:
    entries = defaultdict(list)
    for entry in evidence.facts.timeline:
        entries[entry["actor_id"]].append((entry["at"], entry["data"]))
    for row in evidence.facts.actors:
        try:
            state = replay(row["crash_policy"], row["created_at"], entries[row["id"]], limits())
        except Departure as departure:
            yield f"I16: {row['id']} is {departure}"
            continue
        if essence(state) != essence(Actor(**row).state):
            yield f"I16: the timeline of {row['id']} leads to {state}, and its row is {Actor(**row).state}"


def _check_left_over(evidence: Evidence) -> Iterator[str]:
    facts = evidence.facts
    destroyed = {row["id"] for row in facts.actors if row["status"] == "destroyed"}
    stopped = {row["id"] for row in facts.runners if row["state"] == "stopped"}
    for row in facts.accounts:
        if row["used_bytes"] != row["stored_bytes"]:
            yield f"I12: an account and what it counts differ: {row}"
    for row in facts.entries:
        if row["actor_id"] in destroyed:
            yield f"left over: storage of the destroyed {row['actor_id']}"
    for row in facts.commands:
        if row["runner_id"] in stopped:
            yield f"left over: a command of the stopped runner {row['runner_id']}: {row}"
    yield from (f"left over: {row}" for row in facts.pairs)
