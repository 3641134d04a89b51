"""Clients' WebSockets: what an actor said comes in order, without a gap, and to the end (I7)."""

from collections.abc import Iterator

from tests.faults.checker.evidence import Evidence
from tests.faults.history import SocketLog

REASONS = (
    "actor.stopped",
    "ws.going_away",
    "ws.meta_not_found_during_restore",  # an npm runner's: its process was killed, and with it what it knew
    "guard.",
    "core.bus_unavailable",
    "core.store_unavailable",
)
"""Beginnings of what a socket may be closed with while faults are about."""


ZOMBIES = ("lose runner", "freeze runner", "black-hole runner")
"""Beginnings of the kinds of fault after which a runner may go on with a life that the engine has given up.

What our test runner has heard of a hibernating socket it keeps in its memory, for lack of a better place, and a
life that is over writes there as well. An application keeps it in its actor's storage, which refuses such a life.
"""


def check_sockets(evidence: Evidence) -> Iterator[str]:
    """Give what the clients' sockets break."""
    for log in evidence.history.sockets:
        until = log.closed or evidence.history.ended_at
        if log.may_hibernate and any(evidence.faults(log.opened, until, *ZOMBIES)):
            continue
        yield from _check_order(log)
        yield from _check_end(evidence, log)


def _check_order(log: SocketLog) -> Iterator[str]:
    expected = 0
    for number in log.heard:
        if number > expected or number >= log.sent:
            yield f"I7: {number} came where {expected} was due: {_told(log)}"
            return
        if number < expected and not log.may_hibernate:
            yield f"I7: {number} came twice: {_told(log)}"
            return
        expected = max(expected, number + 1)
    if log.left and expected != log.sent:
        yield f"I7: {log.sent} were sent, the last {log.sent - expected} never came back: {_told(log)}"


def _check_end(evidence: Evidence, log: SocketLog) -> Iterator[str]:
    if log.left:
        return
    if log.closed is None:
        yield f"I7: never closed: {_told(log)}"
    elif log.code is None:
        kills = evidence.faults(log.opened, log.closed, "kill web", after=5.0)
        if not any(f"web{log.web}" in kill.hit for kill in kills):
            yield f"I7: ended without a close: {_told(log)}"
    elif not log.reason.startswith(REASONS):
        yield f"I7: closed without a good reason: {_told(log)}"
    elif not evidence.harmful(log.closed - 1, log.closed):
        yield f"I7: closed although nothing was wrong that may be felt: {_told(log)}"


def _told(log: SocketLog) -> str:
    kind = "hibernating" if log.may_hibernate else "plain"
    end = f"{log.code} {log.reason!r} at {log.closed}"
    return f"{kind} socket of {log.actor_id} at web{log.web}, opened {log.opened}, closed {end}"
