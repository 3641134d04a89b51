"""What one step of an actor's life adds to the metrics. Does no I/O; `turn.py` has it counted after the commit."""

from dataclasses import dataclass
from datetime import datetime

from actors.life import Asleep, Destroyed, Limits, Pending, Running, Signal, Starting, State, Stopping, Wake


@dataclass(frozen=True, slots=True)
class Tally:
    """What is to be counted: the end of a wait, the length of a phase, a failure, a retry, a sleep."""

    wake: tuple[str, str] | None = None  # cause, outcome
    phase: tuple[str, float] | None = None  # name, seconds
    failure: str | None = None
    retried: bool = False
    slept: bool = False


def tally(before: State, signal: Signal, after: State, now: datetime, limits: Limits) -> Tally | None:
    """Return what a step counts for; None for one that counts for nothing, as most do."""
    if after == before:
        return None
    new_failure = after.life.failure if after.life.failure != before.life.failure else None
    found = Tally(
        wake=_wake(before, signal, after),
        phase=_phase(before, after, now, limits),
        failure=new_failure.kind.value if new_failure is not None else None,
        retried=after.life.retries > before.life.retries,
        slept=isinstance(after, Asleep) and not isinstance(before, Asleep),
    )
    return None if found == Tally() else found


def _wake(before: State, signal: Signal, after: State) -> tuple[str, str] | None:
    match before, after:
        case Pending(cause=cause), Starting():
            return cause.value, "allocated"
        case Pending(cause=cause), Asleep():
            return cause.value, "gave_up"
        case Pending(cause=cause), Destroyed():
            return cause.value, "destroyed"
        case Stopping(wake_after=False), Stopping(wake_after=True) if isinstance(signal, Wake):
            return "wake", "deferred"
        case _:
            return None


def _phase(before: State, after: State, now: datetime, limits: Limits) -> tuple[str, float] | None:
    match before, after:
        case Pending(since=since), Starting():
            return "allocate", (now - since).total_seconds()
        case Starting(due=due), Running():
            return "start_actor", (now - due + limits.start).total_seconds()
        case _:
            return None
