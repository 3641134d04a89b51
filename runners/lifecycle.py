"""One runner's life: live, draining, evicting, stopped. Does no I/O (PROTOCOL §4.1, §4.9; DESIGN §11)."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum


class StopReason(StrEnum):
    """Why a runner has ended."""

    LOST = "connection_lost"  # silent for too long
    DRAINED = "drained"  # it went away as it was asked to, or as it asked


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take."""

    lost: timedelta  # silent for longer: it is gone
    handshake: timedelta  # from the eviction to the closing handshake
    settle: timedelta = timedelta(seconds=2)  # actors that have not left are told again after this


@dataclass(frozen=True, slots=True)
class Facts:
    """What the row knows besides the state: written by others, read by `decide`."""

    seen_at: datetime  # the last pong, or the connect
    used_slots: int
    socket_id: str  # empty: no socket


@dataclass(frozen=True, slots=True)
class Live:
    """Connected, or away for a moment."""

    due: datetime


@dataclass(frozen=True, slots=True)
class Draining:
    """Gets no new actors; those it has were told to stop."""

    since: datetime
    until: datetime  # end of the grace
    due: datetime  # its actors are told again: the news may have been lost


@dataclass(frozen=True, slots=True)
class Evicting:
    """Its socket was told to close and not to come back; its actors are lost when it has (DESIGN §11)."""

    since: datetime
    due: datetime
    reason: StopReason


@dataclass(frozen=True, slots=True)
class Stopped:
    """Gone. `due` is set until the last of its actors has been told."""

    reason: StopReason
    at: datetime
    due: datetime | None


State = Live | Draining | Evicting | Stopped


@dataclass(frozen=True, slots=True)
class Connected:
    """A socket was accepted for it."""

    socket_id: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A socket of it was closed."""

    socket_id: str


@dataclass(frozen=True, slots=True)
class Drain:
    """It is to go away, within the grace: it said so, its pool has too many, or a newer version is here.

    `only_if_idle`: not if it has been given an actor meanwhile.
    """

    grace: timedelta
    only_if_idle: bool = False


@dataclass(frozen=True, slots=True)
class SlotFreed:
    """An actor has left it."""


@dataclass(frozen=True, slots=True)
class Evict:
    """It is to go away at once."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Signal = Connected | Disconnected | Drain | SlotFreed | Evict | Tick


@dataclass(frozen=True, slots=True)
class OfferSlots:
    """Give its free slots to the actors that wait in its pool."""


@dataclass(frozen=True, slots=True)
class DrainOlder:
    """Drain the pool's runners of lower versions, if it is configured so."""


@dataclass(frozen=True, slots=True)
class TellDraining:
    """Tell its actors that it goes away."""

    until: datetime


@dataclass(frozen=True, slots=True)
class TellLost:
    """Tell its actors that it is gone."""

    seen_at: datetime
    reason: StopReason


@dataclass(frozen=True, slots=True)
class CloseSocket:
    """Have its sockets closed with `ws.eviction`, except the one to keep."""

    keep_socket_id: str = ""


@dataclass(frozen=True, slots=True)
class TellPool:
    """Tell its pool that it is gone."""


Effect = OfferSlots | DrainOlder | TellDraining | TellLost | CloseSocket | TellPool
Step = tuple[State, list[Effect]]


def due_at(state: State) -> datetime | None:
    """Return when the state wants its next `Tick`; None only when all is done."""
    match state:
        case Live(due) | Draining(due=due) | Evicting(due=due) | Stopped(due=due):
            return due


def decide(state: State, signal: Signal, facts: Facts, now: datetime, limits: Limits) -> Step:
    """Return the next state and the effects to perform. Stale signals change nothing."""
    match state:
        case Live():
            return _live(state, signal, facts, now, limits)
        case Draining():
            return _draining(state, signal, facts, now, limits)
        case Evicting(_, due, reason):
            match signal:
                case Disconnected() if not facts.socket_id:
                    return _stop(reason, facts, now, limits)
                case Tick() if now >= due:
                    return _stop(reason, facts, now, limits)
                case Connected():
                    return state, [CloseSocket()]
                case Disconnected() | Drain() | SlotFreed() | Evict() | Tick():
                    return state, []
        case Stopped(reason, _, due):
            match signal:
                case Tick() | SlotFreed() if due is not None:
                    if facts.used_slots == 0:
                        return replace(state, due=None), []
                    if now < due:
                        return state, []
                    return replace(state, due=now + limits.settle), [TellLost(facts.seen_at, reason)]
                case Connected():
                    return state, [CloseSocket()]
                case Disconnected() | Drain() | SlotFreed() | Evict() | Tick():
                    return state, []


def _live(state: Live, signal: Signal, facts: Facts, now: datetime, limits: Limits) -> Step:
    match signal:
        case Connected(socket_id):
            if socket_id != facts.socket_id:
                return state, []
            return Live(now + limits.lost), [CloseSocket(keep_socket_id=socket_id), OfferSlots(), DrainOlder()]
        case Disconnected() | SlotFreed():
            return state, []
        case Drain(grace, only_if_idle):
            if facts.used_slots == 0:
                return _evict(now, limits)
            return (state, []) if only_if_idle else _drain(now, now + grace, now, limits)
        case Evict():
            return _evict(now, limits)
        case Tick():
            gone_at = facts.seen_at + limits.lost
            if now < gone_at:
                return Live(gone_at), []
            if facts.socket_id:
                return _evict(now, limits, reason=StopReason.LOST)
            return _stop(StopReason.LOST, facts, now, limits)


def _draining(state: Draining, signal: Signal, facts: Facts, now: datetime, limits: Limits) -> Step:
    match signal:
        case SlotFreed() | Tick():
            if facts.used_slots == 0 or now >= state.until:
                return _evict(now, limits, since=state.since)
            return _drain(state.since, state.until, now, limits) if now >= state.due else (state, [])
        case Evict():
            return _evict(now, limits, since=state.since)
        case Disconnected() if not facts.socket_id:
            return _stop(StopReason.DRAINED, facts, now, limits)
        case Drain(grace, only_if_idle):
            sooner = now + grace < state.until and not only_if_idle
            return _drain(state.since, now + grace, now, limits) if sooner else (state, [])
        case Connected(socket_id) if socket_id == facts.socket_id:
            return state, [CloseSocket(keep_socket_id=socket_id)]
        case Connected() | Disconnected():
            return state, []


def _drain(since: datetime, until: datetime, now: datetime, limits: Limits) -> Step:
    return Draining(since, until, min(until, now + limits.settle)), [TellDraining(until)]


def _evict(
    now: datetime, limits: Limits, since: datetime | None = None, reason: StopReason = StopReason.DRAINED
) -> Step:
    return Evicting(since or now, now + limits.handshake, reason), [CloseSocket()]


def _stop(reason: StopReason, facts: Facts, now: datetime, limits: Limits) -> Step:
    """End it; as long as a slot of it is taken, the actors there are told again."""
    due = now + limits.settle if facts.used_slots else None
    tell: list[Effect] = [TellLost(facts.seen_at, reason)] if facts.used_slots else []
    return Stopped(reason, now, due), [*tell, TellPool()]
